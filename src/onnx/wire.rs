//! The protobuf wire format, read without copying and written as a list of segments.
//!
//! A general protobuf library would do but for two things this project promises: fields that a newer ONNX
//! defines and this version does not know go through untouched (they are kept as raw bytes and written
//! back), and a model of many gigabytes is written without first building it in memory (payloads stay
//! slices of their mapped files; see [`Writer`]).
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use crate::error::{Result, bail};
use crate::limits;
use bytes::Bytes;

/// A message type: knows its fields by number. Implemented by the `message!` macro in `proto.rs`.
pub trait Message: Default + Clone {
    /// Reads the value of `field` into the message; unknown fields are kept raw.
    fn read_field(&mut self, key: Key, reader: &mut Reader) -> Result<()>;
    /// Writes all fields in field order, unknown ones last.
    fn write(&self, out: &mut Writer);
}

/// One way a field can be stored in a message: how to read one occurrence and how to write all.
pub trait Field {
    /// Reads one occurrence of the field.
    fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()>;
    /// Writes the field under its number; nothing if it is absent.
    fn write(&self, number: u32, out: &mut Writer);
}

/// Field number and wire type, as they precede every value.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Number of the field in its message.
    pub number: u32,
    /// How its value is encoded.
    pub wire: u8,
    /// Offset of the key itself, for unknown fields.
    start: usize,
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

/// A cursor over one message. Sub-readers share the buffer: nothing is copied.
pub struct Reader {
    buffer: Bytes,
    position: usize,
    depth: usize,
}

impl Reader {
    /// A cursor at the beginning of `buffer`.
    pub fn new(buffer: Bytes) -> Self {
        Reader { buffer, position: 0, depth: 0 }
    }

    /// Reads fields until the end of the buffer.
    pub fn read_message<M: Message>(&mut self) -> Result<M> {
        let mut message = M::default();
        while self.position < self.buffer.len() {
            let key = self.key()?;
            message.read_field(key, self)?;
        }
        Ok(message)
    }

    fn key(&mut self) -> Result<Key> {
        let start = self.position;
        let value = self.varint()?;
        let (number, wire) = (value >> 3, (value & 7) as u8);
        if number == 0 || number > 0x1fff_ffff {
            bail!(InvalidModel, "field number {number} at byte {start} is not valid protobuf");
        }
        Ok(Key { number: number as u32, wire, start })
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.buffer.get(self.position) else {
                bail!(InvalidModel, "the message ends inside a number at byte {}", self.position);
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
        bail!(InvalidModel, "a number of more than 64 bits before byte {}", self.position)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some(slice) = self.buffer.get(self.position..).and_then(|rest| rest.first_chunk::<N>()) else {
            bail!(InvalidModel, "the message ends inside a {N}-byte value at byte {}", self.position);
        };
        self.position += N;
        Ok(*slice)
    }

    /// The bytes of a length-delimited value, sharing the buffer.
    fn delimited(&mut self) -> Result<Bytes> {
        let at = self.position;
        let length = self.varint()?;
        let left = (self.buffer.len() - self.position) as u64;
        if length > left {
            bail!(InvalidModel, "a value at byte {at} claims {length} bytes, but only {left} are left");
        }
        let end = self.position + length as usize;
        let slice = self.buffer.slice(self.position..end);
        self.position = end;
        Ok(slice)
    }

    fn nested(&mut self) -> Result<Reader> {
        if self.depth >= limits::PROTO_DEPTH {
            bail!(LimitExceeded, "messages are nested deeper than {}", limits::PROTO_DEPTH);
        }
        let buffer = self.delimited()?;
        Ok(Reader { buffer, position: 0, depth: self.depth + 1 })
    }

    /// Skips the value of `key` and returns key and value as raw bytes.
    pub fn unknown(&mut self, key: Key) -> Result<Bytes> {
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
            wire => bail!(InvalidModel, "field {} has wire type {wire}, which is not valid here", key.number),
        }
        Ok(())
    }

    fn expect(&self, key: Key, wire: u8) -> Result<()> {
        if key.wire != wire {
            bail!(InvalidModel, "wire type {} where {wire} belongs, at byte {}", key.wire, key.start);
        }
        Ok(())
    }
}

/// Payloads from this size on are kept as slices of where they lie instead of being copied.
const SHARE_FROM: usize = 4096;

/// An encoded message: runs of small bytes, and payloads that still lie in their mapped files.
#[derive(Default)]
pub struct Writer {
    segments: Vec<Bytes>,
    tail: Vec<u8>,
    shared: u64,
}

impl Writer {
    /// The segments in order; concatenated they are the message.
    pub fn into_segments(mut self) -> Vec<Bytes> {
        self.flush();
        self.segments
    }

    /// Length of the message in bytes.
    fn len(&self) -> u64 {
        self.shared + self.tail.len() as u64
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.shared += self.tail.len() as u64;
            self.segments.push(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.tail.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.tail.push(value as u8);
    }

    fn key(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    fn payload(&mut self, number: u32, bytes: &Bytes) {
        self.key(number, BYTES);
        self.varint(bytes.len() as u64);
        if bytes.len() >= SHARE_FROM {
            self.flush();
            self.shared += bytes.len() as u64;
            self.segments.push(bytes.clone());
        } else {
            self.tail.extend_from_slice(bytes);
        }
    }

    fn small(&mut self, number: u32, bytes: &[u8]) {
        self.key(number, BYTES);
        self.varint(bytes.len() as u64);
        self.tail.extend_from_slice(bytes);
    }

    /// Appends raw bytes that already carry their key.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    fn message<M: Message>(&mut self, number: u32, message: &M) {
        let mut inner = Writer::default();
        message.write(&mut inner);
        self.key(number, BYTES);
        self.varint(inner.len());
        for segment in inner.into_segments() {
            if segment.len() >= SHARE_FROM {
                self.flush();
                self.shared += segment.len() as u64;
                self.segments.push(segment);
            } else {
                self.tail.extend_from_slice(&segment);
            }
        }
    }
}

/// Repeated numbers written in one length-delimited run (`[packed = true]`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Packed<T>(pub Vec<T>);

/// A number with its protobuf spelling.
pub trait Scalar: Copy {
    /// Its wire type.
    const WIRE: u8;
    /// Reads one number.
    fn read_one(reader: &mut Reader) -> Result<Self>;
    /// Writes it without a key.
    fn write_one(self, out: &mut Writer);
}

macro_rules! varint_scalar {
    ($($type:ty),*) => {$(
        impl Scalar for $type {
            const WIRE: u8 = VARINT;
            fn read_one(reader: &mut Reader) -> Result<Self> {
                // Negative int32 values are sign-extended to ten bytes; truncation restores them.
                Ok(reader.varint()? as $type)
            }
            fn write_one(self, out: &mut Writer) {
                out.varint(self as i64 as u64);
            }
        }
    )*};
}
varint_scalar!(i32, i64, u64);

macro_rules! fixed_scalar {
    ($($type:ty, $wire:expr),*) => {$(
        impl Scalar for $type {
            const WIRE: u8 = $wire;
            fn read_one(reader: &mut Reader) -> Result<Self> {
                Ok(<$type>::from_le_bytes(reader.fixed()?))
            }
            fn write_one(self, out: &mut Writer) {
                out.tail.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
fixed_scalar!(f32, FIXED32, f64, FIXED64);

fn read_scalars<T: Scalar>(values: &mut Vec<T>, key: Key, reader: &mut Reader) -> Result<()> {
    if key.wire != BYTES {
        reader.expect(key, T::WIRE)?;
        values.push(T::read_one(reader)?);
        return Ok(());
    }
    let mut run = Reader::new(reader.delimited()?);
    // At least a byte each, so the input itself bounds what is taken here.
    values.reserve(run.buffer.len() / size_of::<T>());
    while run.position < run.buffer.len() {
        values.push(T::read_one(&mut run)?);
    }
    Ok(())
}

macro_rules! scalar_fields {
    ($($type:ty),*) => {$(
        impl Field for Option<$type> {
            fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
                reader.expect(key, <$type>::WIRE)?;
                *self = Some(<$type>::read_one(reader)?);
                Ok(())
            }
            fn write(&self, number: u32, out: &mut Writer) {
                if let Some(value) = *self {
                    out.key(number, <$type>::WIRE);
                    value.write_one(out);
                }
            }
        }
        impl Field for Vec<$type> {
            fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
                read_scalars(self, key, reader)
            }
            fn write(&self, number: u32, out: &mut Writer) {
                for value in self {
                    out.key(number, <$type>::WIRE);
                    value.write_one(out);
                }
            }
        }
        impl Field for Packed<$type> {
            fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
                read_scalars(&mut self.0, key, reader)
            }
            fn write(&self, number: u32, out: &mut Writer) {
                if !self.0.is_empty() {
                    let mut run = Writer::default();
                    self.0.iter().for_each(|value| value.write_one(&mut run));
                    out.payload(number, &Bytes::from(run.tail));
                }
            }
        }
    )*};
}
scalar_fields!(i32, i64, u64, f32, f64);

fn read_string(key: Key, reader: &mut Reader) -> Result<String> {
    reader.expect(key, BYTES)?;
    let bytes = reader.delimited()?;
    if bytes.len() > limits::NAME_BYTES {
        bail!(LimitExceeded, "a name of {} bytes (at most {})", bytes.len(), limits::NAME_BYTES);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(e) => bail!(InvalidModel, "a name is not UTF-8 ({e})"),
    }
}

impl Field for Option<String> {
    fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
        *self = Some(read_string(key, reader)?);
        Ok(())
    }
    fn write(&self, number: u32, out: &mut Writer) {
        if let Some(text) = self {
            out.small(number, text.as_bytes());
        }
    }
}

impl Field for Vec<String> {
    fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
        self.push(read_string(key, reader)?);
        Ok(())
    }
    fn write(&self, number: u32, out: &mut Writer) {
        self.iter().for_each(|text| out.small(number, text.as_bytes()));
    }
}

impl Field for Option<Bytes> {
    fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
        reader.expect(key, BYTES)?;
        *self = Some(reader.delimited()?);
        Ok(())
    }
    fn write(&self, number: u32, out: &mut Writer) {
        if let Some(bytes) = self {
            out.payload(number, bytes);
        }
    }
}

impl Field for Vec<Bytes> {
    fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
        reader.expect(key, BYTES)?;
        self.push(reader.delimited()?);
        Ok(())
    }
    fn write(&self, number: u32, out: &mut Writer) {
        self.iter().for_each(|bytes| out.payload(number, bytes));
    }
}

impl<M: Message> Field for Option<Box<M>> {
    fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
        reader.expect(key, BYTES)?;
        let mut inner = reader.nested()?;
        // A message field that occurs twice is merged, as the format demands.
        let mut message = self.take().map(|m| *m).unwrap_or_default();
        while inner.position < inner.buffer.len() {
            let key = inner.key()?;
            message.read_field(key, &mut inner)?;
        }
        *self = Some(Box::new(message));
        Ok(())
    }
    fn write(&self, number: u32, out: &mut Writer) {
        if let Some(message) = self {
            out.message(number, &**message);
        }
    }
}

impl<M: Message> Field for Vec<M> {
    fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
        reader.expect(key, BYTES)?;
        self.push(reader.nested()?.read_message()?);
        Ok(())
    }
    fn write(&self, number: u32, out: &mut Writer) {
        self.iter().for_each(|message| out.message(number, message));
    }
}

/// Declares a message: `message! { /// doc \n Name { 1 => field: Type, … } }`.
macro_rules! message {
    ($($(#[$doc:meta])* $name:ident { $($number:literal => $(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
            /// Fields this version does not know, key and value, written back as they came.
            pub unknown: Vec<bytes::Bytes>,
        }

        impl $crate::onnx::wire::Message for $name {
            fn read_field(
                &mut self,
                key: $crate::onnx::wire::Key,
                reader: &mut $crate::onnx::wire::Reader,
            ) -> $crate::error::Result<()> {
                use $crate::onnx::wire::Field;
                match key.number {
                    $($number => Field::read(&mut self.$field, key, reader)
                        .map_err(|e| e.at(concat!(stringify!($name), ".", stringify!($field)))),)*
                    _ => {
                        self.unknown.push(reader.unknown(key)?);
                        Ok(())
                    }
                }
            }

            fn write(&self, out: &mut $crate::onnx::wire::Writer) {
                use $crate::onnx::wire::Field;
                $(Field::write(&self.$field, $number, out);)*
                self.unknown.iter().for_each(|raw| out.raw(raw));
            }
        }
    )*};
}
pub(crate) use message;

#[cfg(test)]
mod tests {
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
    fn payloads_are_not_copied() {
        let data = Bytes::from(encode(&Tree { data: Some(Bytes::from(vec![1u8; 8192])), ..Tree::default() }));
        let tree: Tree = Reader::new(data.clone()).read_message().unwrap();
        let payload = tree.data.unwrap();
        assert!(data.as_ptr_range().contains(&payload.as_ptr()));
    }

    #[test]
    fn damaged_input_is_refused() {
        for bytes in
            [vec![0x0a, 0x05, b'x'], vec![0x00], vec![0xff; 12], vec![0x0d, 1], vec![0x23], vec![0x0a, 1, 0xff]]
        {
            assert!(decode::<Tree>(bytes.clone()).is_err(), "{bytes:?}");
        }
    }
}
