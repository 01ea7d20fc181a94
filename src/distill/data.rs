//! The text, as models are given it.

use crate::error::{Context, Result, bail, error};
use crate::limits;
use crate::source::Task;
use crate::statistics::Random;
use crate::text::Tokenizer;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Texts to learn from, one or many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    documents: Vec<String>,
}

/// Bytes of a text that are made tokens together. Fixed, so that tokens do not depend on the number of threads.
const PIECE: usize = 1 << 16;

impl Corpus {
    /// One plain text. `InvalidArgument` if there is nothing in it.
    pub fn from_text(text: &str) -> Result<Corpus> {
        if text.contains('\0') {
            bail!(InvalidArgument, "the text is no text: it holds bytes of value 0");
        }
        Corpus::of(vec![text.to_owned()])
    }

    /// A text in each line, as `{"text": "..."}`. The error names the line.
    pub fn from_json_lines(content: &str) -> Result<Corpus> {
        let mut documents = Vec::new();
        for (index, line) in content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let place = || format!("line {}", index + 1);
            let value: serde_json::Value =
                serde_json::from_str(line).map_err(|e| error!(InvalidArgument, "is not JSON: {e}")).at(place)?;
            match value.get("text").and_then(serde_json::Value::as_str) {
                Some(text) => documents.push(text.to_owned()),
                None => return Err(error!(InvalidArgument, "has no \"text\"").at(place())),
            }
        }
        Corpus::of(documents)
    }

    fn of(documents: Vec<String>) -> Result<Corpus> {
        let documents: Vec<String> = documents.into_iter().filter(|text| !text.trim().is_empty()).collect();
        if documents.is_empty() {
            bail!(InvalidArgument, "the text is empty");
        }
        Ok(Corpus { documents })
    }

    /// What is learned from, and what is kept for measuring.
    ///
    /// Models that write text keep the end of the text (or the last texts), others every so manieth line.
    fn split(&self, task: Task, ratio: f32) -> Result<(Vec<String>, Vec<String>)> {
        let (train, held): (Vec<String>, Vec<String>) = match (task, self.documents.as_slice()) {
            (Task::Generate, [text]) => {
                let wanted = (text.len() as f64 * (1.0 - f64::from(ratio))) as usize;
                let at = text.char_indices().find(|(at, c)| *at >= wanted && c.is_whitespace()).map(|(at, _)| at);
                let (first, second) = text.split_at(at.unwrap_or(text.len()));
                (vec![first.to_owned()], vec![second.to_owned()])
            }
            (Task::Generate, texts) => {
                let kept = ((texts.len() as f64 * f64::from(ratio)).ceil() as usize).min(texts.len() - 1);
                let (first, second) = texts.split_at(texts.len() - kept);
                (first.to_vec(), second.to_vec())
            }
            (_, texts) => {
                let lines = texts.iter().flat_map(|text| text.lines()).map(str::trim).filter(|line| !line.is_empty());
                let every = (1.0 / f64::from(ratio)).round().max(2.0) as usize;
                let numbered: Vec<(usize, &str)> = lines.enumerate().collect();
                let (held, train): (Vec<_>, Vec<_>) = numbered.into_iter().partition(|(i, _)| i % every == every - 1);
                let texts = |list: Vec<(usize, &str)>| list.into_iter().map(|(_, line)| line.to_owned()).collect();
                (texts(train), texts(held))
            }
        };
        match (task, train.is_empty(), held.iter().all(|text| text.trim().is_empty())) {
            (_, false, false) => Ok((train, held)),
            (Task::Generate, ..) => bail!(InvalidArgument, "the text is too short to keep a part of it for measuring"),
            _ => bail!(
                InvalidArgument,
                "of {} lines none could be kept for measuring: there must be at least {}",
                train.len() + held.len(),
                (1.0 / f64::from(ratio)).round()
            ),
        }
    }
}

/// What one run reads: rows of tokens, the shorter ones padded behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Number of rows.
    pub rows: usize,
    /// Tokens of the longest.
    pub columns: usize,
    /// Ids, row by row.
    pub ids: Vec<i64>,
    /// Which of them are no padding.
    pub keep: Vec<bool>,
}

impl Batch {
    /// For each place the token that follows it in its row, and whether there is one.
    pub fn next(&self) -> impl Iterator<Item = (i64, bool)> + '_ {
        (0..self.ids.len()).map(|at| {
            let last = at % self.columns.max(1) + 1 == self.columns;
            let known = !last && self.keep[at] && self.keep[at + 1];
            (if known { self.ids[at + 1] } else { 0 }, known)
        })
    }

    /// Tokens that are no padding.
    pub fn tokens(&self) -> usize {
        self.keep.iter().filter(|keep| **keep).count()
    }
}

/// The text in tokens.
pub struct Dataset {
    rows: Vec<Vec<u32>>,
    held: Vec<Vec<u32>>,
    /// The text kept for measuring, as it is.
    pub held_text: Vec<String>,
    pad: i64,
    /// Whether rows differ in length.
    pub ragged: bool,
}

impl Dataset {
    /// Reads `corpus` for a model of `task`: blocks of `length` tokens for those that write text, lines for others.
    ///
    /// `InvalidArgument` if there is less than one block, or fewer lines than can be shared out. Texts of several
    /// documents have `end`, the token that ends a text, behind each.
    pub fn new(
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        task: Task,
        length: usize,
        ratio: f32,
        end: Option<i64>,
    ) -> Result<Dataset> {
        let (train, held_text) = corpus.split(task, ratio)?;
        let pad = tokenizer.pad_id();
        if task != Task::Generate {
            let rows = |texts: &[String]| lines(texts, tokenizer, length);
            return Ok(Dataset { rows: rows(&train)?, held: rows(&held_text)?, held_text, pad, ragged: true });
        }
        let many = corpus.documents.len() > 1;
        let blocks = |texts: &[String]| -> Result<(Vec<Vec<u32>>, usize)> {
            let mut all = Vec::new();
            for text in texts {
                all.extend(tokens(text, tokenizer)?);
                all.extend(end.filter(|_| many).and_then(|id| u32::try_from(id).ok()));
            }
            Ok((all.chunks_exact(length).map(<[u32]>::to_vec).collect(), all.len()))
        };
        let ((rows, count), (mut held, held_count)) = (blocks(&train)?, blocks(&held_text)?);
        if rows.is_empty() {
            bail!(InvalidArgument, "the text has {count} tokens to learn from; a block takes {length}");
        }
        if held.is_empty() {
            // Less than a block is still something to measure on.
            let (all, _) = held_text.iter().try_fold((Vec::new(), 0), |(mut all, n), text| {
                all.extend(tokens(text, tokenizer)?);
                Ok::<_, crate::error::Error>((all, n))
            })?;
            if held_count < 2 {
                bail!(InvalidArgument, "the part of the text kept for measuring has {held_count} tokens");
            }
            held.push(all);
        }
        Ok(Dataset { rows, held, held_text, pad, ragged: false })
    }

    /// Blocks or lines to learn from.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Tokens to learn from.
    pub fn tokens(&self) -> u64 {
        self.rows.iter().map(|row| row.len() as u64).sum()
    }

    /// The batches of an epoch, in an order that depends on the seed and its number alone.
    pub fn epoch(&self, seed: u64, epoch: u32, batch_size: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let mut random = Random::part(seed, u64::from(epoch));
        random.shuffle(&mut order);
        if self.ragged {
            // Rows of like length side by side within a stretch of 64 batches: less padding, the order still random.
            for stretch in order.chunks_mut(64 * batch_size) {
                stretch.sort_by_key(|row| self.rows[*row].len());
            }
        }
        let mut batches: Vec<Vec<usize>> = order.chunks(batch_size).map(<[usize]>::to_vec).collect();
        if self.ragged {
            random.shuffle(&mut batches);
        }
        batches
    }

    /// The rows of a batch.
    pub fn batch(&self, rows: &[usize]) -> Batch {
        self.padded(rows.iter().map(|row| self.rows[*row].as_slice()))
    }

    /// What is kept for measuring, in batches; about `most` tokens of it, taken evenly.
    pub fn held(&self, batch_size: usize, most: usize) -> Vec<Batch> {
        let tokens: usize = self.held.iter().map(Vec::len).sum();
        let step = tokens.div_ceil(most.max(1)).max(1);
        let mut rows: Vec<&[u32]> = self.held.iter().step_by(step).map(Vec::as_slice).collect();
        rows.sort_by_key(|row| row.len());
        rows.chunks(batch_size).map(|rows| self.padded(rows.iter().copied())).collect()
    }

    fn padded<'a>(&self, rows: impl Iterator<Item = &'a [u32]> + Clone) -> Batch {
        let columns = rows.clone().map(<[u32]>::len).max().unwrap_or(0);
        let (mut ids, mut keep, mut count) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            count += 1;
            ids.extend(row.iter().map(|id| i64::from(*id)));
            ids.resize(count * columns, self.pad);
            keep.resize(keep.len() + row.len(), true);
            keep.resize(count * columns, false);
        }
        Batch { rows: count, columns, ids, keep }
    }

    /// Tells texts, tokenizers and lengths apart.
    pub fn hash(&self, into: &mut Sha256) {
        for row in self.rows.iter().chain(&self.held) {
            into.update((row.len() as u64).to_le_bytes());
            row.iter().for_each(|id| into.update(id.to_le_bytes()));
        }
    }
}

/// A long text in tokens, piece by piece; pieces end where a line does.
fn tokens(text: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > PIECE {
        let from = rest.char_indices().map(|(at, _)| at).find(|at| *at >= PIECE).unwrap_or(rest.len());
        let end = rest[from..].find(['\n', ' ']).map_or(rest.len(), |at| from + at);
        let (piece, more) = rest.split_at(end);
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    let encode = |piece: &&str| ids(&tokenizer.encode(piece, false)?.ids);
    let made: Vec<Vec<u32>> = pieces.par_iter().map(encode).collect::<Result<_>>()?;
    Ok(made.concat())
}

/// Each line in tokens, cut to `length`, with the special tokens of the model.
fn lines(texts: &[String], tokenizer: &Tokenizer, length: usize) -> Result<Vec<Vec<u32>>> {
    let encode = |(index, text): (usize, &String)| {
        if text.len() > limits::TEXT_BYTES {
            bail!(LimitExceeded, "line {} has {} bytes; the limit is {}", index + 1, text.len(), limits::TEXT_BYTES);
        }
        ids(&tokenizer.encode_batch(&[text], true, Some(length))?.ids)
    };
    let made: Vec<Vec<u32>> = texts.par_iter().enumerate().map(encode).collect::<Result<_>>()?;
    Ok(made.into_iter().filter(|row| !row.is_empty()).collect())
}

fn ids(wide: &[i64]) -> Result<Vec<u32>> {
    let narrow = |id: &i64| u32::try_from(*id).map_err(|_| error!(InvalidModel, "the tokenizer gives the id {id}"));
    wide.iter().map(narrow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::test_deps;

    fn tokenizer() -> Tokenizer {
        Tokenizer::load(&test_deps("models/all-MiniLM-L6-v2")).unwrap()
    }

    #[test]
    fn every_row_is_read_once_in_an_epoch_and_the_order_is_the_seeds() {
        let text: String = (0..200).map(|i| format!("Line {i} {}.\n", "word ".repeat(i % 17))).collect();
        let corpus = Corpus::from_text(&text).unwrap();
        let data = Dataset::new(&corpus, &tokenizer(), Task::Embed, 16, 0.1, None).unwrap();
        assert_eq!((data.len(), data.held.len()), (180, 20));
        let epoch = |seed, number| data.epoch(seed, number, 8);
        let mut seen: Vec<usize> = epoch(1, 0).concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..180).collect::<Vec<_>>());
        assert_eq!(epoch(1, 0), epoch(1, 0));
        assert!(epoch(1, 0) != epoch(1, 1) && epoch(1, 0) != epoch(2, 0));
        let batch = data.batch(&epoch(1, 0)[3]);
        assert_eq!((batch.ids.len(), batch.keep.len()), (batch.rows * batch.columns, batch.rows * batch.columns));
        assert!(batch.columns <= 16 && batch.tokens() <= batch.ids.len());
        let padded = batch.ids.iter().zip(&batch.keep).all(|(id, keep)| *keep || *id == data.pad);
        assert!(padded);
    }

    #[test]
    fn blocks_are_the_text_in_order_and_its_end_is_kept_for_measuring() {
        let text = "one two three four five six seven eight nine ten ".repeat(40);
        let corpus = Corpus::from_text(&text).unwrap();
        let data = Dataset::new(&corpus, &tokenizer(), Task::Generate, 8, 0.25, None).unwrap();
        assert!(data.rows.iter().all(|row| row.len() == 8) && !data.held.is_empty());
        let whole = tokenizer().encode(&text, false).unwrap().ids;
        let read: Vec<i64> = data.rows.concat().iter().map(|id| i64::from(*id)).collect();
        assert_eq!(read, whole[..read.len()]);
        assert!(text.ends_with(&data.held_text[0]));
    }

    #[test]
    fn what_is_no_text_is_refused_with_the_reason() {
        let refused = |result: Result<Corpus>| result.unwrap_err().to_string();
        assert!(refused(Corpus::from_text("  \n ")).contains("empty"));
        assert!(refused(Corpus::from_text("a\0b")).contains("no text"));
        assert!(refused(Corpus::from_json_lines("{\"text\": \"a\"}\n{}")).starts_with("line 2"));
        assert!(refused(Corpus::from_json_lines("{\"text\": \"a\"}\nb")).contains("line 2: is not JSON"));
        let short = Corpus::from_text("Just a line.").unwrap();
        let made = |task| Dataset::new(&short, &tokenizer(), task, 64, 0.05, None);
        assert!(made(Task::Embed).err().unwrap().to_string().contains("at least 20"));
        assert!(made(Task::Generate).err().unwrap().to_string().contains("too short"));
    }
}
