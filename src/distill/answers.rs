//! The teacher cache: a file with the teacher's outputs for each row of the text, so that further epochs, and other
//! runs on the same text, do not run the teacher.
//!
//! The file has a header of [`HEAD`] bytes (magic, and a hash of teacher, text and kept values), then one record per
//! row, at an offset that follows from the lengths of the rows. A record is 8 bytes of the SHA-256 of its content, and
//! the content. A missing or incomplete record does not match its hash and is computed again; so a run may be killed at
//! any moment. Of logits the most probable are kept, as log-probabilities, with the total probability of the others,
//! which are restored as equally probable. Vectors, and logits of which all are kept, are stored unchanged.

use super::data::Dataset;
use crate::error::{Context, Result, bail};
use crate::graph::floats::to_bytes;
use crate::onnx::dtype::DataType;
use crate::runtime::Tensor;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The size of the header in bytes.
const HEAD: u64 = 64;
const MAGIC: &[u8; 16] = b"liboptimize-td1\n";
/// The size of the hash of a record in bytes.
const CHECK: usize = 8;

/// The parts of an output of the teacher that are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Distributions `[batch, token, size]` or `[batch, size]`, of which the most probable entries are kept.
    Distribution {
        /// Whether there is a distribution for each token, instead of one for each text.
        of_tokens: bool,
        /// Number of tokens or classes of a distribution.
        size: usize,
        /// Number of entries that are kept of each distribution.
        likeliest: usize,
    },
    /// Vectors `[batch, token, width]` or `[batch, width]`, which are kept completely.
    Vectors {
        /// Whether there is a vector for each token, instead of one for each text.
        of_tokens: bool,
        /// Number of elements of a vector.
        width: usize,
    },
}

impl Kept {
    fn of_tokens(self) -> bool {
        let (Kept::Distribution { of_tokens, .. } | Kept::Vectors { of_tokens, .. }) = self;
        of_tokens
    }

    /// Returns the number of elements of a distribution or a vector.
    fn width(self) -> usize {
        match self {
            Kept::Distribution { size, .. } => size,
            Kept::Vectors { width, .. } => width,
        }
    }

    /// Returns the size of one distribution or vector in the file, in bytes.
    fn stored(self) -> usize {
        match self {
            Kept::Distribution { size, likeliest, .. } if likeliest < size => 4 + 8 * likeliest,
            Kept::Distribution { size, .. } => 4 * size,
            Kept::Vectors { width, .. } => 4 * width,
        }
    }
}

/// The teacher cache, opened for one teacher and one text.
pub struct Answers {
    file: File,
    path: PathBuf,
    kept: Vec<Kept>,
    /// Number of tokens of each row of the text.
    lengths: Vec<usize>,
    /// Offset of the record of each row; the last one is the end of the file.
    places: Vec<u64>,
}

impl Answers {
    /// Opens the file at `path`, or creates it, and returns the cache. `teacher` identifies the model, and `kept` has
    /// an entry for each cached output. Fails with `InvalidArgument` if the file is not a teacher cache, or belongs to
    /// another teacher, text or selection of values, and with `NotFound` or `Io` if it cannot be opened, read or
    /// written.
    pub fn open(path: &Path, teacher: &str, data: &Dataset, kept: Vec<Kept>) -> Result<Answers> {
        let mut hash = Sha256::new();
        hash.update(teacher);
        data.hash(&mut hash);
        hash.update(format!("{kept:?}"));
        let mut head = MAGIC.to_vec();
        head.extend(hash.finalize());
        head.resize(HEAD as usize, 0);
        let lengths = data.lengths();
        let mut places = vec![HEAD];
        for length in &lengths {
            let size: usize = kept.iter().map(|k| k.stored() * if k.of_tokens() { *length } else { 1 }).sum();
            places.push(places[places.len() - 1] + (CHECK + size) as u64);
        }
        let open = || -> Result<File> {
            let mut options = File::options();
            let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
            let mut found = Vec::new();
            Read::by_ref(&mut file).take(HEAD).read_to_end(&mut found)?;
            if found.is_empty() {
                file.write_all(&head)?;
            } else if !found.starts_with(MAGIC) {
                bail!(InvalidArgument, "the file is not a teacher cache");
            } else if found != head {
                bail!(
                    InvalidArgument,
                    "the teacher cache belongs to another teacher, text or kind of loss: remove it, or use another file"
                );
            }
            Ok(file)
        };
        let file = open().at(|| format!("teacher cache, {}", path.display()))?;
        Ok(Answers { file, path: path.to_owned(), kept, lengths, places })
    }

    /// Returns the cached values of a batch of rows, padded to `columns` tokens: a tensor for each cached output;
    /// `None` if the record of a row is missing. Fails with `Io` if the file cannot be read.
    pub fn get(&mut self, rows: &[usize], columns: usize) -> Result<Option<Vec<Tensor>>> {
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            match self.read(*row).at(|| format!("teacher cache, {}", self.path.display()))? {
                Some(record) => records.push(record),
                None => return Ok(None),
            }
        }
        let mut at = vec![0; rows.len()];
        let mut made = Vec::with_capacity(self.kept.len());
        for kept in &self.kept {
            let (width, stored) = (kept.width(), kept.stored());
            let each = if kept.of_tokens() { columns } else { 1 };
            let mut values = vec![0f32; rows.len() * each * width];
            for (index, row) in rows.iter().enumerate() {
                let count = if kept.of_tokens() { self.lengths[*row] } else { 1 };
                let bytes = &records[index][at[index]..at[index] + count * stored];
                at[index] += bytes.len();
                let places = values[index * each * width..].chunks_exact_mut(width);
                bytes.chunks_exact(stored).zip(places).for_each(|(bytes, values)| unpack(*kept, bytes, values));
            }
            let shape = match kept.of_tokens() {
                true => vec![rows.len() as i64, columns as i64, width as i64],
                false => vec![rows.len() as i64, width as i64],
            };
            made.push(Tensor::from_f32(&shape, values)?);
        }
        Ok(Some(made))
    }

    /// Stores the outputs `said` of the teacher for a batch of rows, padded to `columns`. Fails with `Io` if the file
    /// cannot be written, and with `Internal` if an output does not have the expected size.
    pub fn put(&mut self, rows: &[usize], columns: usize, said: &[Tensor]) -> Result<()> {
        for (index, row) in rows.iter().enumerate() {
            let mut content = Vec::new();
            for (kept, tensor) in self.kept.iter().zip(said) {
                let (each, count) = if kept.of_tokens() { (columns, self.lengths[*row]) } else { (1, 1) };
                let width = kept.width();
                let values = tensor.as_slice::<f32>()?;
                let Some(values) = values.get(index * each * width..(index * each + count) * width) else {
                    bail!(Internal, "the teacher returned {} elements for {} rows", values.len(), rows.len());
                };
                values.chunks_exact(width).for_each(|values| pack(*kept, values, &mut content));
            }
            self.write(*row, &content).at(|| format!("teacher cache, {}", self.path.display()))?;
        }
        Ok(())
    }

    fn read(&mut self, row: usize) -> Result<Option<Vec<u8>>> {
        let mut record = vec![0; (self.places[row + 1] - self.places[row]) as usize];
        self.file.seek(SeekFrom::Start(self.places[row]))?;
        match self.file.read_exact(&mut record) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let content = record.split_off(CHECK);
        Ok((record == check(&content)).then_some(content))
    }

    fn write(&mut self, row: usize, content: &[u8]) -> Result<()> {
        if CHECK + content.len() != (self.places[row + 1] - self.places[row]) as usize {
            bail!(Internal, "the answer to row {row} has {} bytes", content.len());
        }
        let mut record = check(content);
        record.extend(content);
        self.file.seek(SeekFrom::Start(self.places[row]))?;
        Ok(self.file.write_all(&record)?)
    }
}

fn check(content: &[u8]) -> Vec<u8> {
    Sha256::digest(content)[..CHECK].to_vec()
}

/// Appends one distribution or vector in the format of the file: for a distribution the log-probability of all entries
/// that are not kept, then the log-probability of each kept entry, in descending order, with its index.
fn pack(kept: Kept, values: &[f32], into: &mut Vec<u8>) {
    let (size, likeliest) = match kept {
        Kept::Distribution { size, likeliest, .. } if likeliest < size => (size, likeliest),
        _ => return into.extend(to_bytes(values, DataType::Float32)),
    };
    let order = |a: &u32, b: &u32| values[*b as usize].total_cmp(&values[*a as usize]).then(a.cmp(b));
    let mut numbers: Vec<u32> = (0..size as u32).collect();
    numbers.select_nth_unstable_by(likeliest, order);
    let (first, rest) = numbers.split_at_mut(likeliest);
    first.sort_unstable_by(order);
    let largest = values.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let mass = |numbers: &[u32]| numbers.iter().map(|i| f64::from(values[*i as usize] - largest).exp()).sum::<f64>();
    let (likely, unlikely) = (mass(first), mass(rest));
    let whole = (likely + unlikely).ln();
    into.extend(((unlikely.max(1e-30).ln() - whole) as f32).to_le_bytes());
    for number in first {
        into.extend(((f64::from(values[*number as usize] - largest) - whole) as f32).to_le_bytes());
        into.extend(number.to_le_bytes());
    }
}

fn unpack(kept: Kept, bytes: &[u8], into: &mut [f32]) {
    let word = |at: usize| bytes[4 * at..4 * at + 4].try_into().unwrap_or([0; 4]);
    let float = |at: usize| f32::from_le_bytes(word(at));
    match kept {
        Kept::Distribution { size, likeliest, .. } if likeliest < size => {
            into.fill(float(0) - ((size - likeliest) as f32).ln());
            for index in 0..likeliest {
                if let Some(place) = into.get_mut(u32::from_le_bytes(word(2 + 2 * index)) as usize) {
                    *place = float(1 + 2 * index);
                }
            }
        }
        _ => into.iter_mut().enumerate().for_each(|(index, value)| *value = float(index)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::Corpus;
    use crate::model::{Card, Task};
    use crate::runtime::test_deps;
    use crate::text::Tokenizer;

    fn data() -> Dataset {
        let text: String = (0..60).map(|i| format!("Line {i} {}.\n", "word ".repeat(i % 5))).collect();
        let tokenizer = Tokenizer::load(&test_deps("models/all-MiniLM-L6-v2")).unwrap();
        Dataset::new(
            &Corpus::from_text(&text).unwrap(),
            &tokenizer,
            &Card { task: Task::Embed, ..Card::default() },
            16,
            0.1,
        )
        .unwrap()
    }

    const KEPT: [Kept; 3] = [
        Kept::Distribution { of_tokens: true, size: 50, likeliest: 4 },
        Kept::Vectors { of_tokens: true, width: 3 },
        Kept::Vectors { of_tokens: false, width: 2 },
    ];

    fn said(rows: usize, columns: usize) -> Vec<Tensor> {
        let values = |count: usize| (0..count).map(|i| ((i * i * 7919) % 1013) as f32 / 100.0).collect::<Vec<f32>>();
        let tensor = |shape: [usize; 3]| {
            let count: usize = shape.iter().product();
            let shape: Vec<i64> = shape.iter().map(|s| *s as i64).collect();
            Tensor::from_f32(&shape, values(count)).unwrap()
        };
        vec![
            tensor([rows, columns, 50]),
            tensor([rows, columns, 3]),
            Tensor::from_f32(&[rows as i64, 2], values(2 * rows)).unwrap(),
        ]
    }

    #[test]
    fn what_was_said_comes_back_and_what_is_damaged_does_not() {
        let folder = std::env::temp_dir().join(format!("answers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, data) = (folder.join("answers"), data());
        let batch = data.batch(&[5, 0, 17]);
        let mut answers = Answers::open(&path, "a", &data, KEPT.to_vec()).unwrap();
        assert!(answers.get(&batch.numbers, batch.columns).unwrap().is_none());
        let given = said(batch.rows, batch.columns);
        answers.put(&batch.numbers, batch.columns, &given).unwrap();
        drop(answers);
        let mut answers = Answers::open(&path, "a", &data, KEPT.to_vec()).unwrap();
        let found = answers.get(&batch.numbers, batch.columns).unwrap().unwrap();
        for (at, keep) in batch.keep.iter().enumerate() {
            let row = |tensor: &Tensor, width: usize| tensor.as_slice::<f32>().unwrap()[at * width..][..width].to_vec();
            let (vector, logits, truth) = (row(&found[1], 3), row(&found[0], 50), row(&given[0], 50));
            if !keep {
                assert!(vector.iter().chain(&logits).all(|v| *v == 0.0));
                continue;
            }
            assert_eq!(vector, row(&given[1], 3));
            let whole: f64 = truth.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
            let mut order: Vec<usize> = (0..50).collect();
            order.sort_by(|a, b| truth[*b].total_cmp(&truth[*a]).then(a.cmp(b)));
            for number in &order[..4] {
                assert!((f64::from(logits[*number]) - (f64::from(truth[*number]) - whole)).abs() < 1e-5);
            }
            let sum: f64 = logits.iter().map(|v| f64::from(*v).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            assert!(order[4..].iter().all(|n| logits[*n] == logits[order[4]]));
        }
        assert_eq!(found[2].as_slice::<f32>().unwrap(), given[2].as_slice::<f32>().unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let mut answers = Answers::open(&path, "a", &data, KEPT.to_vec()).unwrap();
        assert!(answers.get(&batch.numbers, batch.columns).unwrap().is_none(), "a damaged record");
        assert!(answers.get(&batch.numbers[..2], batch.columns).unwrap().is_some(), "the others are there");
        let other = Answers::open(&path, "b", &data, KEPT.to_vec()).err().unwrap().to_string();
        assert!(other.contains("another teacher"), "{other}");
        std::fs::write(&path, "a novel").unwrap();
        let other = Answers::open(&path, "a", &data, KEPT.to_vec()).err().unwrap().to_string();
        assert!(other.contains("the file is not a teacher cache"), "{other}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn small_distributions_are_kept_whole() {
        let kept = Kept::Distribution { of_tokens: false, size: 3, likeliest: 64 };
        let (mut bytes, mut back) = (Vec::new(), [0f32; 3]);
        pack(kept, &[1.0, -2.0, 0.5], &mut bytes);
        assert_eq!(bytes.len(), kept.stored());
        unpack(kept, &bytes, &mut back);
        assert_eq!(back, [1.0, -2.0, 0.5]);
    }
}
