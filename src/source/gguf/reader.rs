//! A reader of a GGUF header, which checks that every step stays inside the file.

use crate::error::{Result, bail};
use crate::limits;
use bytes::Bytes;

/// A position in the bytes of a file. Results are slices of these bytes.
pub struct Reader {
    bytes: Bytes,
    position: usize,
}

impl Reader {
    /// Returns a reader at the beginning of `bytes`.
    pub fn new(bytes: Bytes) -> Reader {
        Reader { bytes, position: 0 }
    }

    /// Returns the offset of the next byte.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Returns the number of bytes between the current position and the end of the file.
    pub fn left(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    /// Returns the bytes from an earlier position to the current one.
    pub fn since(&self, start: usize) -> Bytes {
        self.bytes.slice(start.min(self.position)..self.position)
    }

    /// Returns the next `length` bytes. Fails with `InvalidModel` beyond the end of the file.
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

    /// Returns the next four bytes as a little-endian integer. Fails with `InvalidModel` beyond the end of the file.
    pub fn u32(&mut self) -> Result<u32> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Returns the next eight bytes as a little-endian integer. Fails with `InvalidModel` beyond the end of the file.
    pub fn u64(&mut self) -> Result<u64> {
        let b = self.take(8)?;
        Ok(u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    }

    /// Returns a string, which is stored as its length and its bytes. Callers check that it is UTF-8. Fails with
    /// `InvalidModel` beyond the end of the file.
    pub fn text(&mut self) -> Result<Bytes> {
        let length = self.u64()?;
        if length > self.left() {
            bail!(InvalidModel, "a string of {length} bytes at {} exceeds the file", self.position);
        }
        self.take(length as usize)
    }
}

/// Returns `bytes` as a name. Fails with `LimitExceeded` above [`limits::NAME_BYTES`], and with `InvalidModel` if the
/// name is empty or not UTF-8.
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
