//! The training text, divided into batches of tokens.

use crate::error::{Context, Result, bail, error};
use crate::limits;
use crate::model::{Card, Task};
use crate::statistics::Random;
use crate::text::Tokenizer;
use rayon::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// One or many texts to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    documents: Vec<Document>,
}

/// A text, with the name or index of its class if that is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// Content of the text.
    pub text: String,
    /// Name or index of the class of the text, as in the file.
    pub label: Option<String>,
}

/// The number of bytes of a text that are tokenized together. It is fixed, so that tokens do not depend on the number
/// of threads.
const PIECE: usize = 1 << 16;

impl Corpus {
    /// Returns a corpus of one plain text. Fails with `InvalidArgument` if the text is empty or contains a NUL byte.
    pub fn from_text(text: &str) -> Result<Corpus> {
        if text.contains('\0') {
            bail!(InvalidArgument, "the file is not text: it contains NUL bytes");
        }
        Corpus::of(vec![Document { text: text.to_owned(), label: None }])
    }

    /// Returns a corpus of one text per line, as `{"text": "..."}`; for classifiers with the class as `"label"` (a name
    /// or an index). Empty lines and texts are skipped. Fails with `InvalidArgument` if a line is not valid (the error
    /// names the line), or if there is no text.
    pub fn from_json_lines(content: &str) -> Result<Corpus> {
        let mut documents = Vec::new();
        for (index, line) in content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let place = || format!("line {}", index + 1);
            let value: Value = serde_json::from_str(line)
                .map_err(|e| error!(InvalidArgument, "the content is not JSON: {e}"))
                .at(place)?;
            let label = match value.get("label") {
                None | Some(Value::Null) => None,
                Some(Value::String(name)) => Some(name.clone()),
                Some(Value::Number(number)) if number.is_u64() => Some(number.to_string()),
                Some(_) => {
                    return Err(
                        error!(InvalidArgument, "\"label\" is neither the name nor the index of a class").at(place())
                    );
                }
            };
            match value.get("text").and_then(Value::as_str) {
                Some(text) => documents.push(Document { text: text.to_owned(), label }),
                None => return Err(error!(InvalidArgument, "has no \"text\"").at(place())),
            }
        }
        Corpus::of(documents)
    }

    fn of(mut documents: Vec<Document>) -> Result<Corpus> {
        documents.retain(|document| !document.text.trim().is_empty());
        if documents.is_empty() {
            bail!(InvalidArgument, "the text is empty");
        }
        Ok(Corpus { documents })
    }

    /// Returns whether the class of at least one text is known.
    pub fn is_labelled(&self) -> bool {
        self.documents.iter().any(|document| document.label.is_some())
    }

    /// Returns the training texts and the validation texts of the corpus. `ratio` is the share of the validation texts.
    ///
    /// For decoders the end of the text (or the last texts) is held out, for other models every n-th line; a text with
    /// a class counts as one line. Fails with `InvalidArgument` if one of the parts would be empty.
    fn split(&self, task: Task, ratio: f32) -> Result<(Vec<Document>, Vec<Document>)> {
        let part = |text: &str, label: &Option<String>| Document { text: text.to_owned(), label: label.clone() };
        let (train, held): (Vec<Document>, Vec<Document>) = match (task, self.documents.as_slice()) {
            (Task::Generate, [Document { text, .. }]) => {
                let wanted = (text.len() as f64 * (1.0 - f64::from(ratio))) as usize;
                let at = text.char_indices().find(|(at, c)| *at >= wanted && c.is_whitespace()).map(|(at, _)| at);
                let (first, second) = text.split_at(at.unwrap_or(text.len()));
                (vec![part(first, &None)], vec![part(second, &None)])
            }
            (Task::Generate, texts) => {
                let kept = ((texts.len() as f64 * f64::from(ratio)).ceil() as usize).min(texts.len() - 1);
                let (first, second) = texts.split_at(texts.len() - kept);
                (first.to_vec(), second.to_vec())
            }
            (_, texts) => {
                let lines = |document: &Document| -> Vec<Document> {
                    let each = |line: &str| part(line.trim(), &document.label);
                    match document.label {
                        Some(_) => vec![each(&document.text)],
                        None => document.text.lines().map(each).collect(),
                    }
                };
                let lines = texts.iter().flat_map(lines).filter(|line| !line.text.is_empty());
                let every = (1.0 / f64::from(ratio)).round().max(2.0) as usize;
                let numbered: Vec<(usize, Document)> = lines.enumerate().collect();
                let (held, train): (Vec<_>, Vec<_>) = numbered.into_iter().partition(|(i, _)| i % every == every - 1);
                let texts = |list: Vec<(usize, Document)>| list.into_iter().map(|(_, line)| line).collect();
                (texts(train), texts(held))
            }
        };
        match (task, train.is_empty(), held.iter().all(|held| held.text.trim().is_empty())) {
            (_, false, false) => Ok((train, held)),
            (Task::Generate, ..) => {
                bail!(InvalidArgument, "the text is too short to hold out a part of it for validation")
            }
            _ => bail!(
                InvalidArgument,
                "{} lines are too few to hold out one for validation: at least {} are required",
                train.len() + held.len(),
                (1.0 / f64::from(ratio)).round()
            ),
        }
    }
}

/// The input of one run: rows of tokens, padded on the right to the length of the longest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Number of rows of the batch.
    pub rows: usize,
    /// Number of tokens of the longest row.
    pub columns: usize,
    /// Token ids, row by row.
    pub ids: Vec<i64>,
    /// For each element of `ids`, whether it is a token and not padding.
    pub keep: Vec<bool>,
    /// Index of each row in the text: first the training rows, then the validation rows.
    pub numbers: Vec<usize>,
    /// Class of each row, if it is known.
    pub classes: Vec<Option<i64>>,
}

impl Batch {
    /// Returns for each position the next token of its row, if there is one.
    pub fn next(&self) -> impl Iterator<Item = Option<i64>> + '_ {
        (0..self.ids.len()).map(|at| {
            let last = at % self.columns.max(1) + 1 == self.columns;
            let known = !last && self.keep[at] && self.keep[at + 1];
            known.then(|| self.ids[at + 1])
        })
    }

    /// Returns the number of tokens of the batch without padding.
    pub fn tokens(&self) -> usize {
        self.keep.iter().filter(|keep| **keep).count()
    }
}

/// The training and the validation text as tokens.
pub struct Dataset {
    rows: Vec<Row>,
    held: Vec<Row>,
    /// Texts that are held out for validation.
    pub held_text: Vec<Document>,
    pad: i64,
    /// Whether the rows differ in length.
    pub ragged: bool,
}

/// A row of the text: a block of tokens, or a line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    tokens: Vec<u32>,
    class: Option<i64>,
}

impl Dataset {
    /// Tokenizes `corpus` for `model` into blocks of `length` tokens for decoders, or lines of at most `length` tokens
    /// for other models, and returns them. `ratio` is the share of the text that is held out for validation. If there
    /// are several texts, the end-of-text token follows each of them in the blocks.
    ///
    /// Fails with `InvalidArgument` if there is less than one block, if there are too few lines to split, or for a
    /// label that is neither a name of a class nor an index. Fails with `LimitExceeded` for a line that is too long.
    /// Whether an index is valid is not checked here.
    pub fn new(corpus: &Corpus, tokenizer: &Tokenizer, model: &Card, length: usize, ratio: f32) -> Result<Dataset> {
        let (train, held_text) = corpus.split(model.task, ratio)?;
        let pad = tokenizer.pad_id();
        if model.task != Task::Generate {
            let names = model.class_names();
            let rows = |texts: &[Document]| lines(texts, tokenizer, length, &names);
            return Ok(Dataset { rows: rows(&train)?, held: rows(&held_text)?, held_text, pad, ragged: true });
        }
        let end = model.generation.eos_token_ids.first().copied();
        let many = corpus.documents.len() > 1;
        let blocks = |texts: &[Document]| -> Result<(Vec<Row>, usize)> {
            let mut all = Vec::new();
            for document in texts {
                all.extend(tokens(&document.text, tokenizer)?);
                all.extend(end.filter(|_| many).and_then(|id| u32::try_from(id).ok()));
            }
            let row = |tokens: &[u32]| Row { tokens: tokens.to_vec(), class: None };
            Ok((all.chunks_exact(length).map(row).collect(), all.len()))
        };
        let ((rows, count), (mut held, held_count)) = (blocks(&train)?, blocks(&held_text)?);
        if rows.is_empty() {
            bail!(InvalidArgument, "the training text has {count} tokens, fewer than a block of {length}");
        }
        if held.is_empty() {
            // A validation text that is shorter than a block is used as one row; it must have at least two tokens.
            if held_count < 2 {
                bail!(InvalidArgument, "the validation text has only {held_count} tokens");
            }
            let all = held_text.iter().map(|held| tokens(&held.text, tokenizer)).collect::<Result<Vec<_>>>()?;
            held.push(Row { tokens: all.concat(), class: None });
        }
        Ok(Dataset { rows, held, held_text, pad, ragged: false })
    }

    /// Returns the number of blocks or lines for training.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns the largest index of a class; `None` if no class is known.
    pub fn largest_class(&self) -> Option<i64> {
        self.rows.iter().chain(&self.held).filter_map(|row| row.class).max()
    }

    /// Returns the number of tokens for training.
    pub fn tokens(&self) -> u64 {
        self.rows.iter().map(|row| row.tokens.len() as u64).sum()
    }

    /// Returns the batches of an epoch as indices of rows. Their order depends only on the seed and the index of the
    /// epoch.
    pub fn epoch(&self, seed: u64, epoch: u32, batch_size: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let mut random = Random::part(seed, u64::from(epoch));
        random.shuffle(&mut order);
        if self.ragged {
            // Rows are sorted by length within 64 batches each, so that there is less padding and the order stays
            // random.
            for stretch in order.chunks_mut(64 * batch_size) {
                stretch.sort_by_key(|row| self.rows[*row].tokens.len());
            }
        }
        let mut batches: Vec<Vec<usize>> = order.chunks(batch_size).map(<[usize]>::to_vec).collect();
        if self.ragged {
            random.shuffle(&mut batches);
        }
        batches
    }

    /// Returns the batch that consists of these rows.
    pub fn batch(&self, rows: &[usize]) -> Batch {
        self.padded(rows)
    }

    /// Returns the validation batches, which together have at most about `most` tokens and are evenly spread over the
    /// validation text.
    pub fn held(&self, batch_size: usize, most: usize) -> Vec<Batch> {
        let tokens: usize = self.held.iter().map(|row| row.tokens.len()).sum();
        let step = tokens.div_ceil(most.max(1)).max(1);
        let first = self.rows.len();
        let mut numbers: Vec<usize> = (first..first + self.held.len()).step_by(step).collect();
        numbers.sort_by_key(|number| self.row(*number).tokens.len());
        numbers.chunks(batch_size).map(|numbers| self.padded(numbers)).collect()
    }

    /// Returns a row by its index: first the training rows, then the validation rows.
    fn row(&self, number: usize) -> &Row {
        match number.checked_sub(self.rows.len()) {
            None => &self.rows[number],
            Some(held) => &self.held[held],
        }
    }

    /// Returns the number of tokens of each row, in the order of their indices.
    pub fn lengths(&self) -> Vec<usize> {
        self.rows.iter().chain(&self.held).map(|row| row.tokens.len()).collect()
    }

    fn padded(&self, numbers: &[usize]) -> Batch {
        let classes = numbers.iter().map(|number| self.row(*number).class).collect();
        let rows = numbers.iter().map(|number| self.row(*number).tokens.as_slice());
        let columns = rows.clone().map(<[u32]>::len).max().unwrap_or(0);
        let (mut ids, mut keep, mut count) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            count += 1;
            ids.extend(row.iter().map(|id| i64::from(*id)));
            ids.resize(count * columns, self.pad);
            keep.resize(keep.len() + row.len(), true);
            keep.resize(count * columns, false);
        }
        Batch { rows: count, columns, ids, keep, numbers: numbers.to_vec(), classes }
    }

    /// Adds the tokens, lengths and classes of all rows to a hash.
    pub fn hash(&self, into: &mut Sha256) {
        for row in self.rows.iter().chain(&self.held) {
            into.update((row.tokens.len() as u64).to_le_bytes());
            row.tokens.iter().for_each(|id| into.update(id.to_le_bytes()));
            into.update(row.class.unwrap_or(-1).to_le_bytes());
        }
    }
}

/// Returns the tokens of a long text, which is tokenized in pieces that end before a space or a line end.
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

/// Returns the tokens of each text, truncated to `length`, with the special tokens of the model.
fn lines(texts: &[Document], tokenizer: &Tokenizer, length: usize, names: &[(usize, String)]) -> Result<Vec<Row>> {
    let encode = |(index, document): (usize, &Document)| {
        let text = &document.text;
        if text.len() > limits::TEXT_BYTES {
            bail!(LimitExceeded, "line {} has {} bytes; the limit is {}", index + 1, text.len(), limits::TEXT_BYTES);
        }
        let class = document.label.as_deref().map(|label| class_of(label, names)).transpose()?;
        Ok(Row { tokens: ids(&tokenizer.encode_batch(&[text], true, Some(length))?.ids)?, class })
    };
    let made: Vec<Row> = texts.par_iter().enumerate().map(encode).collect::<Result<_>>()?;
    Ok(made.into_iter().filter(|row| !row.tokens.is_empty()).collect())
}

/// Returns the index of the class that a label names, or the index that a label is. Only the sign of an index is
/// checked here: models may have classes without names.
fn class_of(label: &str, names: &[(usize, String)]) -> Result<i64> {
    let named = names.iter().find(|(_, name)| name == label).map(|(number, _)| *number as i64);
    // A negative index would count from the last class.
    match named.or_else(|| label.parse().ok().filter(|number| *number >= 0)) {
        Some(number) => Ok(number),
        None => bail!(InvalidArgument, "the label {label:?} is not a class of the student"),
    }
}

fn ids(wide: &[i64]) -> Result<Vec<u32>> {
    let narrow =
        |id: &i64| u32::try_from(*id).map_err(|_| error!(InvalidModel, "the tokenizer returned the invalid id {id}"));
    wide.iter().map(narrow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::test_deps;

    fn card(task: Task) -> Card {
        Card { task, ..Card::default() }
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::load(&test_deps("models/all-MiniLM-L6-v2")).unwrap()
    }

    #[test]
    fn every_row_is_read_once_in_an_epoch_and_the_order_is_the_seeds() {
        let text: String = (0..200).map(|i| format!("Line {i} {}.\n", "word ".repeat(i % 17))).collect();
        let corpus = Corpus::from_text(&text).unwrap();
        let data = Dataset::new(&corpus, &tokenizer(), &card(Task::Embed), 16, 0.1).unwrap();
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
        let data = Dataset::new(&corpus, &tokenizer(), &card(Task::Generate), 8, 0.25).unwrap();
        assert!(data.rows.iter().all(|row| row.tokens.len() == 8) && !data.held.is_empty());
        let whole = tokenizer().encode(&text, false).unwrap().ids;
        let read: Vec<i64> = data.rows.iter().flat_map(|row| &row.tokens).map(|id| i64::from(*id)).collect();
        assert_eq!(read, whole[..read.len()]);
        assert!(text.ends_with(&data.held_text[0].text));
    }

    #[test]
    fn classes_stay_with_their_texts() {
        let line = |i: usize| match i % 4 {
            0 => format!("{{\"text\": \"Number {i}\\nand more\", \"label\": \"spam\"}}\n"),
            1 => format!("{{\"text\": \"Number {i}\", \"label\": 0}}\n"),
            2 => "{\"text\": \"\", \"label\": 0}\n".to_owned(),
            _ => format!("{{\"text\": \"Number {i}\"}}\n"),
        };
        let content: String = (0..40).map(line).collect();
        let mut card = card(Task::Classify);
        card.config = serde_json::json!({ "id2label": { "0": "ham", "1": "spam" } }).as_object().unwrap().clone();
        let corpus = Corpus::from_json_lines(&content).unwrap();
        let data = Dataset::new(&corpus, &tokenizer(), &card, 16, 0.1).unwrap();
        assert!(corpus.is_labelled());
        assert_eq!((data.rows.len(), data.held.len()), (27, 3));
        for number in 0..30 {
            let row = data.row(number);
            let ids: Vec<i64> = row.tokens.iter().map(|id| i64::from(*id)).collect();
            let text = tokenizer().decode(&ids, true).unwrap();
            let i: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(row.class, [Some(1), Some(0), None, None][i % 4], "{text}");
            assert_eq!(text.ends_with("and more"), i.is_multiple_of(4));
        }
        assert_eq!(data.batch(&[0, 1, 2]).classes, [data.row(0).class, data.row(1).class, data.row(2).class]);
        card.config.clear();
        let unknown = Dataset::new(&corpus, &tokenizer(), &card, 16, 0.1).err().unwrap().to_string();
        assert!(unknown.contains("\"spam\" is not a class"), "{unknown}");
        let class = |label: &str, names: &[(usize, String)]| class_of(label, names).ok();
        assert_eq!((class("1", &[]), class("-1", &[]), class("9223372036854775808", &[])), (Some(1), None, None));
        assert_eq!(class("-1", &[(0, "-1".to_owned())]), Some(0), "a name");
    }

    #[test]
    fn what_is_no_text_is_refused_with_the_reason() {
        let refused = |result: Result<Corpus>| result.unwrap_err().to_string();
        assert!(refused(Corpus::from_text("  \n ")).contains("empty"));
        assert!(refused(Corpus::from_text("a\0b")).contains("not text"));
        assert!(refused(Corpus::from_json_lines("{\"text\": \"a\"}\n{}")).starts_with("line 2"));
        assert!(refused(Corpus::from_json_lines("{\"text\": \"a\"}\nb")).contains("line 2: the content is not JSON"));
        assert!(refused(Corpus::from_json_lines("{\"text\": \"a\", \"label\": [1]}")).starts_with("line 1"));
        let short = Corpus::from_text("Just a line.").unwrap();
        let made = |task| Dataset::new(&short, &tokenizer(), &card(task), 64, 0.05);
        assert!(made(Task::Embed).err().unwrap().to_string().contains("at least 20"));
        assert!(made(Task::Generate).err().unwrap().to_string().contains("too short"));
    }
}
