//! A part of the file of a compiled model: numbers and vectors in order, and weights by their offset in the file.

use std::sync::Arc;

use crate::kernels::{Activation, Class, LinearHeader, PackedLinear, Storage};
use crate::provider::abi::{Error, Mapping, Result};

/// The kinds of bodies. A file contains the index of a kind in this array.
const KINDS: [&str; 7] = ["linear", "attention", "packed attention", "norm", "activation", "mlp", "grouped attention"];

/// A writer of a part.
#[derive(Default)]
pub struct Part {
    /// Numbers written so far.
    pub bytes: Vec<u8>,
    /// Weights so far, each with the position in `bytes` where its offset is to be written.
    pub weights: Vec<(usize, Arc<PackedLinear>)>,
}

impl Part {
    /// Writes the kind of the body. This must be the first call.
    pub fn kind(&mut self, kind: &str) {
        let number = KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len());
        self.size(number);
    }

    /// Writes a number of 64 bits.
    pub fn number(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    /// Writes a size, as a number.
    pub fn size(&mut self, size: usize) {
        self.number(size as u64);
    }

    /// Writes a float32.
    pub fn float(&mut self, float: f32) {
        self.number(u64::from(float.to_bits()));
    }

    /// Writes an optional size.
    pub fn optional(&mut self, size: Option<usize>) {
        self.number(size.map_or(0, |size| size as u64 + 1));
    }

    /// Writes an activation function, as the index of its kind.
    pub fn activation(&mut self, activation: Activation) {
        self.number(u64::from(activation as u32));
    }

    /// Writes an optional vector.
    pub fn floats(&mut self, floats: Option<&[f32]>) {
        self.optional(floats.map(<[f32]>::len));
        floats.unwrap_or_default().iter().for_each(|float| self.bytes.extend(float.to_le_bytes()));
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    /// Writes the header of packed weights; their bytes are written to another place of the file.
    pub fn weights(&mut self, weights: &Arc<PackedLinear>) {
        self.bytes.extend(weights.header().to_bytes());
        self.weights.push((self.bytes.len(), Arc::clone(weights)));
        self.number(0);
    }
}

/// A reader of a part. Its functions must be called in the order of those that wrote the part, and fail if the part
/// ends.
pub struct Reader<'a> {
    bytes: &'a [u8],
    file: &'a Arc<Mapping>,
    ports: &'a [Vec<usize>; 2],
}

impl<'a> Reader<'a> {
    /// Returns the reader of the part `bytes` of `file`. `ports` are the current indices of the inputs and outputs of
    /// the node in the file: ONNX Runtime may change their order.
    pub fn new(bytes: &'a [u8], file: &'a Arc<Mapping>, ports: &'a [Vec<usize>; 2]) -> Self {
        Self { bytes, file, ports }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(|| Error::new("it is truncated"))?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Reads the kind of the body, one of `KINDS`, and returns it. Fails like [`Self::size`], and if the kind is
    /// unknown.
    pub fn kind(&mut self) -> Result<&'static str> {
        let number = self.size()?;
        KINDS.get(number).copied().ok_or_else(|| Error::new("the kind of the body is unknown"))
    }

    /// Reads a number of 64 bits, and returns it. Fails if the part ends before it.
    pub fn number(&mut self) -> Result<u64> {
        let mut number = [0; 8];
        number.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(number))
    }

    /// Reads a size, and returns it. Fails if the part ends before it, or if it is larger than the file.
    pub fn size(&mut self) -> Result<usize> {
        let size = self.number()?;
        // Every size in a part is smaller than the file.
        let most = (*self.file).as_ref().as_ref().len();
        usize::try_from(size).ok().filter(|size| *size <= most).ok_or_else(|| Error::new("a size is out of range"))
    }

    /// Reads a float32, and returns it. Fails like [`Self::number`].
    pub fn float(&mut self) -> Result<f32> {
        Ok(f32::from_bits(self.number()? as u32))
    }

    /// Reads an optional size, and returns it. Fails like [`Self::size`].
    pub fn optional(&mut self) -> Result<Option<usize>> {
        Ok(self.size()?.checked_sub(1))
    }

    /// Reads the index of an input, and returns its current index. Fails like [`Self::size`], and if the node has fewer
    /// inputs.
    pub fn input(&mut self) -> Result<usize> {
        let written = self.size()?;
        self.port(0, written)
    }

    /// Reads the index of an output, and returns its current index. Fails like [`Self::size`], and if the node has
    /// fewer outputs.
    pub fn output(&mut self) -> Result<usize> {
        let written = self.size()?;
        self.port(1, written)
    }

    /// Reads the index of an optional input, and returns its current index. Fails like [`Self::input`].
    pub fn optional_input(&mut self) -> Result<Option<usize>> {
        self.optional()?.map(|written| self.port(0, written)).transpose()
    }

    /// Reads the index of an optional output, and returns its current index. Fails like [`Self::output`].
    pub fn optional_output(&mut self) -> Result<Option<usize>> {
        self.optional()?.map(|written| self.port(1, written)).transpose()
    }

    fn port(&self, side: usize, written: usize) -> Result<usize> {
        self.ports[side].get(written).copied().ok_or_else(|| Error::new("the node has too few inputs or outputs"))
    }

    /// Reads an activation function, and returns it. Fails if it is unknown, and like [`Self::number`].
    pub fn activation(&mut self) -> Result<Activation> {
        use Activation::{Gelu, GeluTanh, None, QuickGelu, Relu, Sigmoid, Silu, Tanh};
        let number = self.number()?;
        let mut known = [None, Relu, Gelu, GeluTanh, Silu, Sigmoid, Tanh, QuickGelu].into_iter();
        known.find(|known| u64::from(*known as u32) == number).ok_or_else(|| Error::new("an activation is unknown"))
    }

    /// Reads an optional vector, and returns it. Fails if the part ends before the end of the vector.
    pub fn floats(&mut self) -> Result<Option<Vec<f32>>> {
        let Some(count) = self.optional()? else { return Ok(None) };
        let bytes = self.take((count * 4).next_multiple_of(8))?;
        let floats = bytes.chunks_exact(4).take(count).map(|float| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(float);
            f32::from_le_bytes(bytes)
        });
        Ok(Some(floats.collect()))
    }

    /// Reads packed weights, and returns them. They stay in the mapped file. Fails if their header is damaged, if they
    /// exceed the file, or if they are not for this processor.
    pub fn weights(&mut self) -> Result<PackedLinear> {
        let mut header = [0; LinearHeader::LEN];
        header.copy_from_slice(self.take(LinearHeader::LEN)?);
        let wrong = |error: crate::kernels::PackError| Error(error.to_string());
        let header = LinearHeader::from_bytes(&header).map_err(wrong)?;
        let start = self.size()?;
        let range =
            start..start.checked_add(header.bytes().map_err(wrong)?).ok_or_else(|| Error::new("a size overflows"))?;
        let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::<Mapping>::clone(self.file);
        let storage = Storage::shared(owner, range).ok_or_else(|| Error::new("weights exceed the file"))?;
        PackedLinear::open(header, storage).map_err(wrong)
    }

    /// Returns the class of the kernels that run on this processor.
    pub fn class(&self) -> Class {
        Class::detect()
    }
}
