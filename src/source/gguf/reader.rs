//! Reading a GGUF header front to back, every step inside the file.

use crate::error::{Result, bail};
use crate::limits;
use bytes::Bytes;

/// A position in a file's bytes. What it gives are slices of them.
pub struct Reader {
    bytes: Bytes,
    position: usize,
}

impl Reader {
    /// At the beginning of `bytes`.
    pub fn new(bytes: Bytes) -> Reader {
        Reader { bytes, position: 0 }
    }

    /// Where the next byte is.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes from here to the end.
    pub fn left(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    /// The bytes between an earlier position and here.
    pub fn since(&self, start: usize) -> Bytes {
        self.bytes.slice(start.min(self.position)..self.position)
    }

    /// The next bytes.
    pub fn take(&mut self, length: usize) -> Result<Bytes> {
        let end = self.position.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            let (at, left) = (self.position, self.left());
            bail!(
                InvalidModel,
                "the file ends in its header: {length} bytes are expected at {at}, but only {left} are left"
            );
        };
        let taken = self.bytes.slice(self.position..end);
        self.position = end;
        Ok(taken)
    }

    /// A number of 32 bits.
    pub fn u32(&mut self) -> Result<u32> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// A number of 64 bits.
    pub fn u64(&mut self) -> Result<u64> {
        let b = self.take(8)?;
        Ok(u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    }

    /// A text: its length, then its bytes. They are checked to be UTF-8 by whoever uses them.
    pub fn text(&mut self) -> Result<Bytes> {
        let length = self.u64()?;
        if length > self.left() {
            bail!(InvalidModel, "a string of {length} bytes at {} exceeds the file", self.position);
        }
        self.take(length as usize)
    }
}

/// A name: UTF-8, not empty, not longer than [`limits::NAME_BYTES`].
pub fn name(bytes: &[u8]) -> Result<&str> {
    if bytes.len() > limits::NAME_BYTES {
        bail!(LimitExceeded, "a name has {} bytes; the limit is {}", bytes.len(), limits::NAME_BYTES);
    }
    match std::str::from_utf8(bytes) {
        Ok("") => bail!(InvalidModel, "a name is empty"),
        Ok(name) => Ok(name),
        Err(_) => bail!(InvalidModel, "a name is not UTF-8"),
    }
}
