//! The protobuf wire format, read without copying and written as a list of segments.
//!
//! A general protobuf library does not meet two requirements of this project. Fields that this version does not know,
//! because a newer ONNX defines them, are kept as raw bytes and written back. A model of many gigabytes is written
//! without building it in memory: large payloads stay slices of their mapped files (see [`Writer`]). `fields.rs`
//! describes how each kind of field is stored.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use crate::error::{Result, bail};
use crate::limits;
use bytes::Bytes;

/// A message type, which identifies its fields by number. The `message!` macro in `fields.rs` implements it.
pub trait Message: Default + Clone {
    /// Reads the value of `key` from `reader` into the message; unknown fields are kept as bytes.
    fn read_field(&mut self, key: Key, reader: &mut Reader) -> Result<()>;
    /// Writes all fields in the order of their numbers, unknown ones last.
    fn write(&self, out: &mut Writer);
}

/// The field number and the wire type, which precede every value.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Number of the field in its message.
    pub number: u32,
    /// Wire type, which determines the encoding of the value.
    pub wire: u8,
    /// Position of the key itself in its message, for unknown fields.
    start: usize,
}

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
pub(super) const FIXED32: u8 = 5;

/// A cursor over one message. The readers of nested messages share the buffer, so that payloads are not copied.
pub struct Reader {
    buffer: Bytes,
    position: usize,
    /// Offset of `buffer` in the file, for positions in errors.
    base: usize,
    depth: usize,
    /// Number of bytes of heap that may still be allocated.
    budget: u64,
}

impl Reader {
    /// Returns a cursor at the start of `buffer`.
    pub fn new(buffer: Bytes) -> Self {
        let budget = limits::DECODED_BYTES + limits::DECODED_PER_BYTE * buffer.len() as u64;
        Reader { buffer, position: 0, base: 0, depth: 0, budget }
    }

    /// Returns the message whose fields are those from the current position to the end of the buffer. Fails with
    /// `InvalidModel` if the bytes are not a valid message, and with `LimitExceeded` if messages are nested too deeply
    /// or would need too much memory.
    pub fn read_message<M: Message>(&mut self) -> Result<M> {
        let mut message = M::default();
        self.fields(&mut message)?;
        Ok(message)
    }

    fn fields<M: Message>(&mut self, message: &mut M) -> Result<()> {
        while !self.at_end() {
            let key = self.key()?;
            message.read_field(key, self)?;
        }
        Ok(())
    }

    /// Reads a nested message into `message`, merging with existing content, as the format requires. Fails like
    /// [`Reader::read_message`].
    pub(super) fn nested<M: Message>(&mut self, message: &mut M) -> Result<()> {
        if self.depth >= limits::PROTO_DEPTH {
            bail!(LimitExceeded, "messages are nested deeper than {}", limits::PROTO_DEPTH);
        }
        self.charge(size_of::<M>())?;
        let mut inner = self.enter()?;
        inner.depth += 1;
        inner.fields(message)?;
        self.budget = inner.budget;
        Ok(())
    }

    /// Returns a reader of the next length-delimited value. It has a copy of the budget of this reader. Fails like
    /// [`Reader::delimited`].
    pub(super) fn enter(&mut self) -> Result<Reader> {
        let buffer = self.delimited()?;
        let base = self.base + self.position - buffer.len();
        Ok(Reader { buffer, position: 0, base, depth: self.depth, budget: self.budget })
    }

    /// Returns whether the buffer has no more bytes.
    pub(super) fn at_end(&self) -> bool {
        self.position >= self.buffer.len()
    }

    /// Returns the bytes from the current position to the end of the buffer.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.position..]
    }

    /// Subtracts `bytes` from the number of bytes that may be allocated. It must be called before they are allocated.
    /// Fails with `LimitExceeded` if fewer bytes are left.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<()> {
        match self.budget.checked_sub(bytes as u64) {
            Some(left) => self.budget = left,
            None => bail!(LimitExceeded, "the content would need more memory than any model of this size"),
        }
        Ok(())
    }

    /// Returns the current position in the file, in bytes.
    fn place(&self) -> usize {
        self.base + self.position
    }

    fn key(&mut self) -> Result<Key> {
        let start = self.position;
        let value = self.varint()?;
        let (number, wire) = (value >> 3, (value & 7) as u8);
        if number == 0 || number > 0x1fff_ffff {
            bail!(InvalidModel, "field number {number} at byte {} is not valid protobuf", self.base + start);
        }
        Ok(Key { number: number as u32, wire, start })
    }

    /// Returns the next varint. Fails with `InvalidModel` if it is truncated or has more than 64 bits.
    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.buffer.get(self.position) else {
                bail!(InvalidModel, "the message ends inside a varint at byte {}", self.place());
            };
            self.position += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!(InvalidModel, "a varint of more than 64 bits before byte {}", self.place())
    }

    /// Returns the next `N` bytes. Fails with `InvalidModel` if fewer are left.
    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some(slice) = self.rest().first_chunk::<N>().copied() else {
            bail!(InvalidModel, "the message ends inside a {N}-byte value at byte {}", self.place());
        };
        self.position += N;
        Ok(slice)
    }

    /// Returns the bytes of the next length-delimited value, which share the buffer. Fails with `InvalidModel` if the
    /// value is truncated.
    pub(super) fn delimited(&mut self) -> Result<Bytes> {
        let at = self.place();
        let length = self.varint()?;
        let left = self.rest().len() as u64;
        if length > left {
            bail!(InvalidModel, "a value at byte {at} claims {length} bytes, but only {left} are left");
        }
        let end = self.position + length as usize;
        let slice = self.buffer.slice(self.position..end);
        self.position = end;
        Ok(slice)
    }

    /// Skips the value of `key` and returns key and value as raw bytes. Fails with `InvalidModel` if the value is
    /// damaged, and with `LimitExceeded` if groups are nested too deeply or too much memory would be needed.
    pub fn unknown(&mut self, key: Key) -> Result<Bytes> {
        self.charge(size_of::<Bytes>())?;
        self.skip(key, 0)?;
        Ok(self.buffer.slice(key.start..self.position))
    }

    fn skip(&mut self, key: Key, depth: usize) -> Result<()> {
        match key.wire {
            VARINT => drop(self.varint()?),
            FIXED64 => drop(self.fixed::<8>()?),
            BYTES => drop(self.delimited()?),
            FIXED32 => drop(self.fixed::<4>()?),
            GROUP if depth < limits::PROTO_DEPTH => loop {
                let inner = self.key()?;
                if inner.wire == GROUP_END {
                    if inner.number != key.number {
                        bail!(InvalidModel, "group {} is closed as {}", key.number, inner.number);
                    }
                    break;
                }
                self.skip(inner, depth + 1)?;
            },
            GROUP => bail!(LimitExceeded, "groups are nested deeper than {}", limits::PROTO_DEPTH),
            wire => bail!(InvalidModel, "field {} has wire type {wire}, which is not valid here", key.number),
        }
        Ok(())
    }

    /// Checks that `key` has the wire type `wire`. Fails with `InvalidModel` if it does not.
    pub(super) fn expect(&self, key: Key, wire: u8) -> Result<()> {
        if key.wire != wire {
            bail!(InvalidModel, "wire type {} instead of {wire}, at byte {}", key.wire, self.base + key.start);
        }
        Ok(())
    }
}

/// The size in bytes from which on payloads are shared slices instead of copies.
const SHARE_FROM: usize = 4096;

/// An encoded message: runs of small bytes, and large payloads that share their memory, for example slices of mapped
/// files.
#[derive(Default)]
pub struct Writer {
    segments: Vec<Bytes>,
    tail: Vec<u8>,
    shared: u64,
}

impl Writer {
    /// Returns the segments in order; their concatenation is the message.
    pub fn into_segments(mut self) -> Vec<Bytes> {
        self.flush();
        self.segments
    }

    /// Returns the length of the message in bytes.
    fn len(&self) -> u64 {
        self.shared + self.tail.len() as u64
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.shared += self.tail.len() as u64;
            self.segments.push(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }

    /// Appends a varint.
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.tail.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.tail.push(value as u8);
    }

    /// Appends the key of the field `number` with the wire type `wire`.
    pub(super) fn key(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    /// Appends bytes unchanged, such as a fixed-width value.
    pub(super) fn copy(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Appends bytes unchanged, without a copy if there are at least `SHARE_FROM` of them. No key is written: unknown
    /// fields contain theirs.
    pub fn raw(&mut self, bytes: &Bytes) {
        if bytes.len() >= SHARE_FROM {
            self.flush();
            self.shared += bytes.len() as u64;
            self.segments.push(bytes.clone());
        } else {
            self.tail.extend_from_slice(bytes);
        }
    }

    /// Writes the field `number` as a length-delimited value, like [`Self::raw`].
    pub(super) fn payload(&mut self, number: u32, bytes: &Bytes) {
        self.key(number, BYTES);
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Writes the field `number` as a string.
    pub(super) fn text(&mut self, number: u32, text: &str) {
        self.key(number, BYTES);
        self.varint(text.len() as u64);
        self.tail.extend_from_slice(text.as_bytes());
    }

    /// Writes the field `number` as a length-delimited value whose content `fill` writes: a nested message, or packed
    /// numbers.
    pub(super) fn nested(&mut self, number: u32, fill: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        fill(&mut inner);
        self.key(number, BYTES);
        self.varint(inner.len());
        inner.into_segments().iter().for_each(|segment| self.raw(segment));
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::{Packed, message};
    use super::*;

    message! {
        Leaf { 1 => value: Option<i64>, }
        Tree { 1 => name: Option<String>, 2 => numbers: Packed<i32>, 3 => leaves: Vec<Leaf>, 4 => data: Option<Bytes>, }
    }

    fn encode<M: Message>(m: &M) -> Vec<u8> {
        let mut w = Writer::default();
        m.write(&mut w);
        let length = w.len();
        let bytes = w.into_segments().concat();
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    fn decode<M: Message>(bytes: Vec<u8>) -> Result<M> {
        Reader::new(Bytes::from(bytes)).read_message()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let tree = Tree {
            name: Some("n".into()),
            numbers: Packed(vec![1, -1, i32::MIN, i32::MAX]),
            leaves: vec![Leaf { value: Some(-5), ..Leaf::default() }, Leaf::default()],
            data: Some(Bytes::from(vec![7u8; 10_000])),
            ..Tree::default()
        };
        assert_eq!(decode::<Tree>(encode(&tree)).unwrap(), tree);
    }

    #[test]
    fn unknown_fields_are_written_back() {
        // Field 15 as a varint, field 16 as bytes, field 17 as a group.
        let raw = vec![0x78, 0x2a, 0x82, 0x01, 0x02, b'h', b'i', 0x8b, 0x01, 0x08, 0x01, 0x8c, 0x01];
        assert_eq!(encode(&decode::<Leaf>(raw.clone()).unwrap()), raw);
    }

    #[test]
    fn payloads_are_not_copied_in_either_direction() {
        let mut encoded = encode(&Tree { data: Some(Bytes::from(vec![1u8; 8192])), ..Tree::default() });
        encoded.extend([0x7a, 0x80, 0x40]); // unknown field 15 with 8192 bytes
        encoded.extend([2u8; 8192]);
        let data = Bytes::from(encoded);
        let tree: Tree = Reader::new(data.clone()).read_message().unwrap();
        assert!(data.as_ptr_range().contains(&tree.data.as_ref().unwrap().as_ptr()));
        let mut writer = Writer::default();
        tree.write(&mut writer);
        let large = writer.into_segments().into_iter().filter(|s| s.len() >= SHARE_FROM);
        assert_eq!(large.map(|s| assert!(data.as_ptr_range().contains(&s.as_ptr()))).count(), 2);
    }

    #[test]
    fn damaged_input_is_refused() {
        for bytes in
            [vec![0x0a, 0x05, b'x'], vec![0x00], vec![0xff; 12], vec![0x0d, 1], vec![0x23], vec![0x0a, 1, 0xff]]
        {
            assert!(decode::<Tree>(bytes.clone()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn many_empty_messages_do_not_take_all_memory() {
        // Messages of two bytes each, and packed integers of one byte: both need much more memory than bytes of the
        // file.
        for bytes in [[0x1a, 0x00].repeat(1000), [vec![0x12, 0xe8, 0x07], vec![0; 1000]].concat()] {
            let mut reader = Reader::new(Bytes::from(bytes.clone()));
            reader.budget = 3000;
            let error = reader.read_message::<Tree>().unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::LimitExceeded);
            assert!(decode::<Tree>(bytes).is_ok());
        }
    }

    #[test]
    fn errors_name_the_byte_in_the_whole_file() {
        let error = decode::<Tree>(vec![0x0a, 0x01, b'n', 0x1a, 0x02, 0x08, 0xff]).unwrap_err();
        assert!(error.message().ends_with("at byte 7"), "{error}");
        assert_eq!(error.place(), "Tree.leaves: Leaf.value");
    }
}
