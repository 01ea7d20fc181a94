//! The generation of text by members with one vocabulary, which decode in step ([`Chorus`]).

use super::combine::{Combined, Combiner};
use super::schedule::Plan;
use super::{Ensemble, place};
use crate::call::Call;
use crate::error::{Context, Error, Kind, Result, bail, error};
use crate::model::GenerationDefaults;
use crate::runtime::{Placement, Runtime, SessionOptions, Stop};
use crate::text::generate;
use crate::text::stream::RowText;
use crate::text::{GenerateOptions, Generation, Generator, OnToken, Prompt, RowTexts, Rows, Tokenizer, Uncertainty};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The loaded models of an ensemble, of which equal ones are loaded once.
pub(super) struct Voices {
    /// Generators of the models, each with its own caches.
    pub generators: Vec<Generator>,
    /// Index of the generator of each member.
    pub of_member: Vec<usize>,
    plan: Plan,
    tokenizer: Option<Arc<Tokenizer>>,
}

/// A callback that receives the number of tokens that have been run.
type Ran<'a> = dyn FnMut(usize) -> Result<()> + 'a;

impl Voices {
    /// Loads the members, each with the number of threads in the plan, and returns them. Fails like
    /// [`Ensemble::tokenizer`] and [`Voices::with_tokenizers`].
    pub fn new(
        ensemble: &Ensemble,
        runtime: &'static Runtime,
        options: &SessionOptions,
        call: &Call,
    ) -> Result<Voices> {
        let tokenizer = ensemble.tokenizer()?;
        Voices::with_tokenizers(ensemble, runtime, options, call, |_| Ok(tokenizer.clone()))
    }

    /// Loads the members like [`Voices::new`], each with its own tokenizer, and returns them. Fails with the error of
    /// `tokenizer`, and like [`Generator::new`]; the place of the error names the member.
    pub fn with_tokenizers(
        ensemble: &Ensemble,
        runtime: &'static Runtime,
        options: &SessionOptions,
        call: &Call,
        mut tokenizer: impl FnMut(usize) -> Result<Option<Arc<Tokenizer>>>,
    ) -> Result<Voices> {
        let members = ensemble.members();
        let (mut distinct, mut of_member): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        for (index, member) in members.iter().enumerate() {
            let same = distinct.iter().position(|other| members[*other].model.same_as(&member.model));
            of_member.push(same.unwrap_or(distinct.len()));
            if same.is_none() {
                distinct.push(index);
            }
        }
        // A step reads all weights once, so its cost is the size of the weights in bytes.
        let costs: Vec<f64> = distinct.iter().map(|index| members[*index].model.bytes() as f64).collect();
        let threads = options.thread_count();
        let plan = Plan::new(&costs, threads);
        let mut generators = Vec::with_capacity(distinct.len());
        for (voice, &index) in distinct.iter().enumerate() {
            let session = SessionOptions { threads: plan.threads_of(voice, threads), ..options.clone() };
            let tokenizer = tokenizer(index)?;
            let made = Generator::with_own_tokenizer(runtime, &members[index].model, tokenizer, &session, call);
            generators.push(made.at(|| place(index))?);
        }
        let tokenizer = generators.first().and_then(|generator| generator.tokenizer().cloned());
        Ok(Voices { generators, of_member, plan, tokenizer })
    }

    /// Returns the provider and the device on which each of the loaded models runs.
    pub fn placements(&self) -> Vec<&Placement> {
        self.generators.iter().flat_map(|generator| generator.placements()).collect()
    }

    /// Returns the smallest context length of the members in tokens; `None` if none has a limit.
    pub fn context(&self) -> Option<usize> {
        self.generators.iter().filter_map(|generator| generator.decoder().context).min()
    }

    /// Reserves capacity in every generator; see [`Rows::reserve`].
    pub fn reserve(&mut self, tokens: usize) {
        self.generators.iter_mut().for_each(|generator| generator.reserve(tokens));
    }

    /// Drops the rows of every generator.
    pub fn reset(&mut self) {
        self.generators.iter_mut().for_each(Generator::reset);
    }

    /// Calls `work` with every generator. Fails with the first error of `work`; its place names the member.
    pub fn each(&mut self, mut work: impl FnMut(&mut Generator) -> Result<()>) -> Result<()> {
        let of_member = &self.of_member;
        self.generators.iter_mut().enumerate().try_for_each(|(voice, generator)| {
            work(generator).at(|| place(of_member.iter().position(|of| *of == voice).unwrap_or(voice)))
        })
    }

    /// Calls `work` with each generator and its index; the plan determines which calls run at the same time. Fails with
    /// an error of `work`, whose place names the member, or with `Internal` if `work` panics on another thread.
    pub fn in_lanes(&mut self, work: &(dyn Fn(usize, &mut Generator) -> Result<()> + Sync)) -> Result<()> {
        let mut left: Vec<Option<&mut Generator>> = self.generators.iter_mut().map(Some).collect();
        let mut take = |voices: &[usize]| -> Vec<(usize, &mut Generator)> {
            voices.iter().filter_map(|voice| Some((*voice, left[*voice].take()?))).collect()
        };
        let (wide, lanes) = (take(&self.plan.wide), self.plan.lanes.iter().map(|lane| take(lane)).collect::<Vec<_>>());
        let of_member = &self.of_member;
        let one_by_one = |voices: Vec<(usize, &mut Generator)>| {
            let member = |voice: usize| of_member.iter().position(|of| *of == voice).unwrap_or(voice);
            voices.into_iter().try_for_each(|(voice, generator)| work(voice, generator).at(|| place(member(voice))))
        };
        one_by_one(wide)?;
        let mut lanes = lanes.into_iter();
        let here = lanes.next().unwrap_or_default();
        let one_by_one = &one_by_one;
        std::thread::scope(|scope| {
            let others: Vec<_> = lanes.map(|lane| scope.spawn(move || one_by_one(lane))).collect();
            let mut outcome = one_by_one(here);
            for other in others {
                let joined = other.join().unwrap_or_else(|_| Err(error!(Internal, "the thread of a member panicked")));
                outcome = worse(outcome, joined);
            }
            outcome
        })
    }

    /// Runs new tokens of the rows in every generator. Afterwards `ran` is called with the number of tokens that the
    /// first generator has run. Fails with an error of a generator or of `ran`.
    pub fn advance(&mut self, rows: &[usize], stop: &Stop, ran: &mut Ran<'_>) -> Result<()> {
        let read = AtomicUsize::new(0);
        self.in_lanes(&|voice, generator| {
            let mut count = |tokens: usize| {
                read.fetch_add(if voice == 0 { tokens } else { 0 }, Ordering::Relaxed);
                Ok(())
            };
            generator.advance_rows(rows, stop, &mut count)
        })?;
        match read.into_inner() {
            0 => Ok(()),
            tokens => ran(tokens),
        }
    }

    pub fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.tokenizer.as_ref()
    }
}

/// Returns the error of the results, if there is one. If both are errors, and one is due to the caller's cancel or
/// deadline, returns this one: the other may only be its consequence.
fn worse(a: Result<()>, b: Result<()>) -> Result<()> {
    let own = |e: &Error| matches!(e.kind(), Kind::Cancelled | Kind::Timeout);
    match (a, b) {
        (Err(a), Err(b)) => Err(if own(&b) { b } else { a }),
        (a, b) => a.and(b),
    }
}

/// The members that decode in step, with their distributions combined at every token.
pub(super) struct Chorus {
    voices: Voices,
    combiner: Combiner,
    rows: Vec<Row>,
}

#[derive(Default)]
struct Row {
    /// Distribution of the next token of a row; `None` if some appended tokens have not been run.
    combined: Option<Combined>,
    text: RowText,
}

impl Chorus {
    pub fn new(ensemble: &Ensemble, voices: Voices) -> Chorus {
        Chorus { voices, combiner: ensemble.combiner(), rows: Vec::new() }
    }

    fn leader(&self) -> &Generator {
        &self.voices.generators[0]
    }
}

impl RowTexts for Chorus {
    fn begin_text(&mut self, row: usize, keep_special: bool, whole: bool) -> Result<String> {
        let tokens = whole.then(|| self.voices.generators[0].tokens(row)).transpose()?;
        self.rows[row].text.begin(self.voices.tokenizer(), keep_special, tokens)
    }

    fn piece(&mut self, row: usize, token: i64) -> Result<String> {
        self.rows[row].text.push(self.voices.tokenizer(), token)
    }

    fn open_text(&self, row: usize) -> Result<String> {
        self.rows[row].text.open()
    }

    fn end_text(&mut self, row: usize) -> Result<String> {
        self.rows[row].text.end()
    }
}

impl Rows for Chorus {
    fn start(&mut self, rows: usize) -> Result<()> {
        self.voices.each(|generator| generator.start(rows))?;
        self.rows.clear();
        self.rows.resize_with(rows, Row::default);
        Ok(())
    }

    fn placements(&self) -> Vec<&Placement> {
        self.voices.placements()
    }

    fn reset(&mut self) {
        self.voices.reset();
        self.rows.clear();
    }

    fn row_count(&self) -> usize {
        self.rows.len()
    }

    fn tokens(&self, row: usize) -> Result<&[i64]> {
        self.leader().tokens(row)
    }

    fn append(&mut self, row: usize, prompt: Prompt<'_>) -> Result<usize> {
        let before = self.leader().tokens(row)?.len();
        // All members use one tokenizer, so that they read the same tokens.
        let count = self.voices.generators[0].append(row, prompt)?;
        let tokens = self.leader().tokens(row)?[before..].to_vec();
        for generator in &mut self.voices.generators[1..] {
            generator.append(row, Prompt::Tokens(&tokens))?;
        }
        if count > 0 {
            self.rows[row] = Row::default();
        }
        Ok(count)
    }

    fn push(&mut self, row: usize, token: i64) -> Result<()> {
        self.voices.each(|generator| generator.push(row, token))?;
        self.rows[row].combined = None;
        Ok(())
    }

    fn advance_rows(&mut self, rows: &[usize], stop: &Stop, ran: &mut Ran<'_>) -> Result<()> {
        self.voices.advance(rows, stop, ran)?;
        for &row in rows {
            if self.rows[row].combined.is_some() {
                continue;
            }
            let Voices { generators, of_member, .. } = &self.voices;
            let logits: Vec<&[f32]> =
                of_member.iter().map(|voice| generators[*voice].next_logits(row)).collect::<Result<_>>()?;
            self.rows[row].combined = Some(self.combiner.combine(&logits)?);
        }
        Ok(())
    }

    fn next_logits(&self, row: usize) -> Result<&[f32]> {
        match self.rows.get(row).and_then(|row| row.combined.as_ref()) {
            Some(combined) => Ok(&combined.log_probabilities),
            None => bail!(InvalidArgument, "row {row} has tokens that have not been run yet"),
        }
    }

    fn reserve(&mut self, tokens: usize) {
        self.voices.reserve(tokens);
    }

    fn context(&self) -> Option<usize> {
        self.voices.context()
    }

    fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.voices.tokenizer()
    }

    fn defaults(&self) -> &GenerationDefaults {
        self.leader().defaults()
    }

    fn uncertainty(&self, row: usize, token: i64) -> Option<Uncertainty> {
        let combined = self.rows.get(row)?.combined.as_ref()?;
        let chose = |top: &usize| i64::try_from(*top) == Ok(token);
        Some(self.combiner.uncertainty(combined, chose))
    }

    fn run(
        &mut self,
        options: &GenerateOptions,
        on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>> {
        generate::run(self, options, on_token, call)
    }
}
