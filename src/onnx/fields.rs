//! The types of fields of protobuf messages, with their reading and writing.

use super::wire::{BYTES, FIXED32, FIXED64, Key, Message, Reader, VARINT, Writer};
use crate::error::{Result, bail};
use crate::limits;
use bytes::Bytes;

/// A type of a message field that can be read from and written to a message.
pub trait Field {
    /// Reads one occurrence of the field. A single scalar or byte field keeps the last occurrence, a single message
    /// merges all of them, and a repeated field collects them.
    fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()>;
    /// Writes all occurrences of the field that were read.
    fn write(&self, number: u32, out: &mut Writer);
}

/// Repeated numbers that are written as one length-delimited value (`[packed = true]`); they are read from both
/// encodings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Packed<T>(pub Vec<T>);

/// A number with its protobuf encoding.
pub trait Scalar: Copy {
    /// Wire type of the number in protobuf.
    const WIRE: u8;
    /// Reads one number of this type, and returns it.
    fn read_one(reader: &mut Reader) -> Result<Self>;
    /// Writes the number without a key.
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
                out.copy(&self.to_le_bytes());
            }
        }
    )*};
}
fixed_scalar!(f32, FIXED32, f64, FIXED64);

fn read_scalars<T: Scalar>(values: &mut Vec<T>, key: Key, reader: &mut Reader) -> Result<()> {
    if key.wire != BYTES {
        reader.expect(key, T::WIRE)?;
        reader.charge(size_of::<T>())?;
        values.push(T::read_one(reader)?);
        return Ok(());
    }
    let mut run = reader.enter()?;
    let count = match T::WIRE {
        VARINT => run.rest().iter().filter(|&&byte| byte < 0x80).count(),
        _ => run.rest().len() / size_of::<T>(),
    };
    reader.charge(count * size_of::<T>())?;
    values.reserve(count);
    while !run.at_end() {
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
                    out.nested(number, |run| self.0.iter().for_each(|value| value.write_one(run)));
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
        bail!(LimitExceeded, "a name of {} bytes is too long; the limit is {}", bytes.len(), limits::NAME_BYTES);
    }
    reader.charge(size_of::<String>() + bytes.len())?;
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
            out.text(number, text);
        }
    }
}

impl Field for Vec<String> {
    fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
        self.push(read_string(key, reader)?);
        Ok(())
    }
    fn write(&self, number: u32, out: &mut Writer) {
        self.iter().for_each(|text| out.text(number, text));
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
        reader.charge(size_of::<Bytes>())?;
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
        // A message field that occurs twice is merged, as the format requires.
        reader.nested(&mut **self.get_or_insert_default())
    }
    fn write(&self, number: u32, out: &mut Writer) {
        if let Some(message) = self {
            out.nested(number, |inner| message.write(inner));
        }
    }
}

impl<M: Message> Field for Vec<M> {
    fn read(&mut self, key: Key, reader: &mut Reader) -> Result<()> {
        reader.expect(key, BYTES)?;
        let mut message = M::default();
        reader.nested(&mut message)?;
        self.push(message);
        Ok(())
    }
    fn write(&self, number: u32, out: &mut Writer) {
        self.iter().for_each(|message| out.nested(number, |inner| message.write(inner)));
    }
}

/// A macro that declares message types, each as `/// doc \n Name { 1 => field: Type, … }`, with their
/// `Message` implementation.
macro_rules! message {
    ($($(#[$doc:meta])* $name:ident { $($number:literal => $(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
            /// Fields unknown to this version, key and value, written back unchanged.
            pub unknown: Vec<bytes::Bytes>,
        }

        impl $crate::onnx::wire::Message for $name {
            fn read_field(
                &mut self,
                key: $crate::onnx::wire::Key,
                reader: &mut $crate::onnx::wire::Reader,
            ) -> $crate::error::Result<()> {
                use $crate::onnx::fields::Field;
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
                use $crate::onnx::fields::Field;
                $(Field::write(&self.$field, $number, out);)*
                self.unknown.iter().for_each(|raw| out.raw(raw));
            }
        }
    )*};
}
pub(crate) use message;
