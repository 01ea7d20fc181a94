//! The generation of texts by each member, of which the one with the best score is the result ([`Rerank`]).
//!
//! The score of a text `y` is `Σ w_m ln p_m(y) / |y|^λ`, with the weights `w_m` and distributions `p_m` of the members,
//! the number `|y|` of tokens of the text, and the length penalty `λ` (Wu et al. 2016 use the same quotient).

use super::Ensemble;
use super::chorus::Voices;
use crate::call::{Call, Stage};
use crate::error::{Context, Result, bail};
use crate::likelihood::log_sum_exp;
use crate::model::GenerationDefaults;
use crate::runtime::{Placement, Stop};
use crate::text::{
    FinishReason, GenerateOptions, Generation, Generator, Logprobs, OnToken, Prompt, RowTexts, Rows, Tokenizer, Written,
};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

/// The members, which generate independently.
pub(super) struct Rerank {
    voices: Voices,
    weights: Vec<f64>,
    temperatures: Vec<f64>,
    candidates: usize,
    length_penalty: f64,
    /// Tokens of each row so far. While texts are generated, the rows of the generators are candidates.
    rows: Vec<Vec<i64>>,
}

/// A text that a member has generated, with its tokens.
#[derive(Default, Clone)]
struct Candidate {
    tokens: Vec<i64>,
    pieces: Vec<String>,
    logprobs: Vec<Logprobs>,
    finish: Option<FinishReason>,
    text: String,
}

impl Rerank {
    pub fn new(ensemble: &Ensemble, voices: Voices) -> Rerank {
        let members = ensemble.members();
        Rerank {
            voices,
            weights: members.iter().map(|member| member.weight).collect(),
            temperatures: members.iter().map(|member| member.temperature).collect(),
            candidates: ensemble.options().candidates.max(1),
            length_penalty: ensemble.options().length_penalty.unwrap_or(1.0),
            rows: Vec::new(),
        }
    }

    /// Generates `candidates` texts after each row with each generator and returns them: a list per generator, in the
    /// order of the rows.
    fn write(&mut self, options: &GenerateOptions, call: &Call) -> Result<Vec<Vec<Candidate>>> {
        let prompts: Vec<Prompt<'_>> =
            self.rows.iter().flat_map(|row| vec![Prompt::Tokens(row); self.candidates]).collect();
        let count = prompts.len();
        let made: Vec<Mutex<Vec<Candidate>>> =
            self.voices.generators.iter().map(|_| Mutex::new(vec![Candidate::default(); count])).collect();
        // Progress is reported on the caller's thread only; a cancel and the deadline end the work of all threads.
        let quiet = Call { progress: None, deadline: call.deadline, cancel: call.cancel };
        let (cancel, deadline) = (quiet.cancel, quiet.deadline);
        self.voices.in_lanes(&|voice, generator| {
            let mut found = vec![Candidate::default(); count];
            let first_row = options.first_row + (voice * count) as u64;
            let options = GenerateOptions { first_row, echo: false, ..options.clone() };
            let mut note = |written: &Written<'_>| {
                let candidate = &mut found[written.row];
                candidate.tokens.push(written.token);
                candidate.pieces.push(written.text.to_owned());
                candidate.logprobs.extend(written.logprobs.cloned());
                candidate.finish = written.finish_reason;
                ControlFlow::Continue(())
            };
            let call = Call { progress: None, deadline, cancel };
            let written = generator.generate(&prompts, &options, Some(&mut note), &call)?;
            for (candidate, generation) in found.iter_mut().zip(written) {
                (candidate.text, candidate.finish) = (generation.text, Some(generation.finish_reason));
            }
            *made[voice].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = found;
            Ok(())
        })?;
        let unlocked = made.into_iter().map(|m| m.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
        Ok(unlocked.collect())
    }

    /// Returns the text of a candidate as it continues a row's prompt: both are decoded together, so a space between
    /// them is kept.
    fn after_prompt(&self, row: usize, winner: &Candidate, keep_special: bool) -> Result<String> {
        let prompt = self.text(row, keep_special)?;
        let Some(tokenizer) = self.tokenizer() else { return Ok(prompt) };
        let alone = tokenizer.decode(&winner.tokens, !keep_special)?;
        let all = tokenizer.decode(&[self.tokens(row)?, &winner.tokens].concat(), !keep_special)?;
        let between = all.strip_prefix(&prompt).and_then(|rest| rest.strip_suffix(&alone)).unwrap_or_default();
        Ok(prompt.clone() + between + &winner.text)
    }

    /// Returns the log-probability `ln p_m` of every text under every member, as `[member][text]`. `texts` are row
    /// indices and tokens. Members with the same generator read the texts together, each at its own temperature.
    fn score(&mut self, texts: &[(usize, &[i64])], call: &Call) -> Result<Vec<Vec<f64>>> {
        let scores: Vec<Mutex<Vec<f64>>> = self.weights.iter().map(|_| Mutex::default()).collect();
        let stop = Stop::new()?;
        let (rows, of_member, temperatures) = (&self.rows, self.voices.of_member.clone(), &self.temperatures);
        let voices = &mut self.voices;
        stop.during(call, || {
            voices.in_lanes(&|voice, generator| {
                let members: Vec<usize> = (0..of_member.len()).filter(|member| of_member[*member] == voice).collect();
                let own: Vec<f64> = members.iter().map(|member| temperatures[*member]).collect();
                for (member, found) in members.into_iter().zip(score(generator, rows, texts, &own, &stop)?) {
                    *scores[member].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = found;
                }
                Ok(())
            })
        })?;
        Ok(scores.into_iter().map(|m| m.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)).collect())
    }
}

/// Returns, for each of `temperatures`, the log-probability `ln p` of each text after its row, where `p` is the softmax
/// of the logits divided by the temperature.
fn score(
    generator: &mut Generator,
    rows: &[Vec<i64>],
    texts: &[(usize, &[i64])],
    temperatures: &[f64],
    stop: &Stop,
) -> Result<Vec<Vec<f64>>> {
    generator.start(texts.len())?;
    for (index, (row, _)) in texts.iter().enumerate() {
        generator.append(index, Prompt::Tokens(&rows[*row]))?;
    }
    let mut scores = vec![vec![0.0; texts.len()]; temperatures.len()];
    let longest = texts.iter().map(|(_, tokens)| tokens.len()).max().unwrap_or(0);
    for step in 0..longest {
        let active: Vec<usize> = (0..texts.len()).filter(|index| step < texts[*index].1.len()).collect();
        generator.advance_rows(&active, stop, &mut |_| Ok(()))?;
        for index in active {
            let token = texts[index].1[step];
            let logits = generator.next_logits(index)?;
            for (temperature, scores) in temperatures.iter().zip(&mut scores) {
                let scaled: Vec<f64> = logits.iter().map(|logit| f64::from(*logit) / temperature).collect();
                let own = usize::try_from(token).ok().and_then(|token| scaled.get(token));
                scores[index] += own.map_or(f64::NEG_INFINITY, |own| own - log_sum_exp(&scaled));
            }
            generator.push(index, token)?;
        }
    }
    Ok(scores)
}

impl RowTexts for Rerank {}

impl Rows for Rerank {
    fn start(&mut self, rows: usize) -> Result<()> {
        self.voices.generators[0].start(rows)?;
        self.rows = vec![Vec::new(); rows];
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
        match self.rows.get(row) {
            Some(tokens) => Ok(tokens),
            None => bail!(InvalidArgument, "row {row} does not exist; there are {}", self.rows.len()),
        }
    }

    fn append(&mut self, row: usize, prompt: Prompt<'_>) -> Result<usize> {
        // The first generator converts the prompt to tokens, in a row that already contains the previous ones.
        let before = self.tokens(row)?.to_vec();
        let reader = &mut self.voices.generators[0];
        reader.start(1)?;
        reader.append(0, Prompt::Tokens(&before))?;
        let count = reader.append(0, prompt)?;
        self.rows[row] = reader.tokens(0)?.to_vec();
        Ok(count)
    }

    fn push(&mut self, row: usize, token: i64) -> Result<()> {
        self.tokens(row)?;
        self.rows[row].push(token);
        Ok(())
    }

    fn advance_rows(&mut self, _: &[usize], _: &Stop, _: &mut dyn FnMut(usize) -> Result<()>) -> Result<()> {
        bail!(Unsupported, "the method `rerank` generates whole texts, not single tokens")
    }

    fn next_logits(&self, _: usize) -> Result<&[f32]> {
        bail!(Unsupported, "the method `rerank` has no combined token distribution")
    }

    fn reserve(&mut self, _: usize) {}

    fn context(&self) -> Option<usize> {
        self.voices.context()
    }

    fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.voices.tokenizer()
    }

    fn defaults(&self) -> &GenerationDefaults {
        self.voices.generators[0].defaults()
    }

    fn run(
        &mut self,
        options: &GenerateOptions,
        mut on_token: Option<&mut OnToken<'_>>,
        call: &Call,
    ) -> Result<Vec<Generation>> {
        if let Some(row) = self.rows.iter().position(Vec::is_empty) {
            bail!(InvalidArgument, "row {}: the prompt is empty", row + 1);
        }
        call.report(Stage::GENERATE, 0, 0)?;
        let written = self.write(options, call)?;
        let per_row = self.candidates;
        let texts: Vec<(usize, &Candidate)> =
            written.iter().flat_map(|voice| voice.iter().enumerate().map(|(at, text)| (at / per_row, text))).collect();
        let pairs: Vec<(usize, &[i64])> = texts.iter().map(|(row, text)| (*row, text.tokens.as_slice())).collect();
        let scores = self.score(&pairs, call).at(|| "scoring")?;
        let total = |text: usize| -> f64 {
            let sum: f64 = scores.iter().zip(&self.weights).map(|(scores, weight)| weight * scores[text]).sum();
            sum / (texts[text].1.tokens.len().max(1) as f64).powf(self.length_penalty)
        };
        let mut best: Vec<Option<(f64, usize)>> = vec![None; self.rows.len()];
        for (index, (row, _)) in texts.iter().enumerate() {
            let score = total(index);
            // Among equal scores the first wins, so that the order of the members decides.
            if best[*row].is_none_or(|(most, _)| score > most) {
                best[*row] = Some((score, index));
            }
        }
        let mut generations = Vec::with_capacity(self.rows.len());
        let mut stopped = false;
        for (row, best) in best.into_iter().enumerate() {
            let Some((_, index)) = best else { continue };
            let winner = texts[index].1.clone();
            let text = match options.echo {
                true => self.after_prompt(row, &winner, options.keep_special_tokens)?,
                false => winner.text.clone(),
            };
            if !stopped {
                stopped = tell(row, &winner, on_token.as_deref_mut()).is_break();
            }
            generations.push(Generation {
                text,
                tokens: winner.tokens,
                logprobs: winner.logprobs,
                uncertainty: Vec::new(),
                mean_uncertainty: None,
                finish_reason: winner.finish.unwrap_or(FinishReason::Cancelled),
                prompt_tokens: self.rows[row].len(),
                draft: None,
            });
        }
        for (row, generation) in self.rows.iter_mut().zip(&generations) {
            row.extend(&generation.tokens);
        }
        Ok(generations)
    }
}

/// Calls the callback for each token of a finished text. Returns `Break` if the callback does.
fn tell(row: usize, text: &Candidate, on_token: Option<&mut OnToken<'_>>) -> ControlFlow<()> {
    let Some(tell) = on_token else { return ControlFlow::Continue(()) };
    let last = text.tokens.len().saturating_sub(1);
    for (index, (token, piece)) in text.tokens.iter().zip(&text.pieces).enumerate() {
        tell(&Written {
            row,
            token: *token,
            text: piece,
            logprobs: text.logprobs.get(index),
            uncertainty: None,
            finish_reason: text.finish.filter(|_| index == last),
        })?;
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ensemble::tests::fixture;
    use crate::ensemble::{EnsembleOptions, Method};
    use crate::model::Model;
    use crate::runtime::{SessionOptions, test_runtime};

    #[test]
    fn a_model_that_occurs_twice_scores_at_both_temperatures() {
        let load = |family: &str| Model::load(&fixture(family)).unwrap();
        let (twice, other) = (load("llama"), load("gpt2"));
        let (temperatures, session) =
            (vec![1.0, 0.7, 0.25], SessionOptions { threads: 1, ..SessionOptions::default() });
        let options = EnsembleOptions {
            method: Method::Rerank,
            temperatures: temperatures.clone(),
            weights: vec![0.5, 0.3, 0.2],
            ..EnsembleOptions::default()
        };
        let ensemble = Ensemble::new(vec![twice.clone(), other.clone(), twice.clone()], options).unwrap();
        let (runtime, call) = (test_runtime(), Call::default());
        let mut rerank = Rerank::new(&ensemble, Voices::new(&ensemble, runtime, &session, &call).unwrap());
        assert_eq!(rerank.voices.generators.len(), 2);
        rerank.start(1).unwrap();
        rerank.append(0, Prompt::Tokens(&[7, 8, 9])).unwrap();
        let text = [20, 33, 5];
        let found = rerank.score(&[(0, &text)], &call).unwrap();
        assert_eq!(found.len(), 3);
        for (member, model) in [&twice, &other, &twice].into_iter().enumerate() {
            let mut alone = Generator::new(runtime, model, &session, &call).unwrap();
            alone.start(1).unwrap();
            alone.append(0, Prompt::Tokens(&[7, 8, 9])).unwrap();
            let mut expected = 0.0;
            for token in text {
                alone.advance(&call).unwrap();
                let logits = alone.next_logits(0).unwrap().iter();
                let scaled: Vec<f64> = logits.map(|logit| f64::from(*logit) / temperatures[member]).collect();
                expected -= crate::likelihood::surprise(
                    &scaled.iter().map(|logit| *logit as f32).collect::<Vec<f32>>(),
                    token as usize,
                );
                alone.push(0, token).unwrap();
            }
            assert!((found[member][0] - expected).abs() < 1e-4, "member {member}: {found:?} and {expected}");
        }
    }
}
