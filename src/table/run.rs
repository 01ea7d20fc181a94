//! The measurement of the table, row by row.

use super::facts::{actions, name_of, size_of, split};
use super::measure::{How, Load, measure, shape_name};
use super::quality::Data;
use super::report::{Interval, ModelTable, Pair, Promise, Row, SCHEMA_VERSION, Speed, State, Table};
use super::rows::{self, Given, Name, Plan};
use super::store::{self, Made, Store};
use super::{markdown, promise};
use crate::benchmark::{self, BenchmarkOptions, benchmark_engine};
use crate::call::{Call, Progress, Stage};
use crate::error::{Kind, Result, bail, error};
use crate::kernels::Class;
use crate::limits;
use crate::model::Model;
use crate::open;
use crate::recipe::{ApplyOptions, Recipe, apply};
use crate::report::Machine;
use crate::runtime::{Runtime, SessionOptions, kernels_usable};
use crate::source::LoadOptions;
use crate::tensorrt::{self, EngineFile, OpenOptions};
use crate::text::Tokenizer;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The stage in which a row is measured. The caller sees the stage of the table instead.
const MEASURE: Stage = Stage { name: "measure", unit: Stage::TABLE.unit };

/// The options of [`table`].
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// Content of a text for calibration, training and quality, of at most [`limits::TEXT_BYTES`] bytes. The last
    /// quarter of its lines (of labelled lines, every fourth line) is held out for quality, unless it has fewer than
    /// four lines. `None` measures quality on built-in sentences, and skips rows that need a text. If each line is a
    /// label, a tab and a text, the accuracy of classifiers and embedding models is measured, too.
    pub data: Option<String>,
    /// Names of the rows to measure ([`super::names`]); empty for all.
    pub rows: Vec<String>,
    /// Path of a second model, for the row `ensemble`; `None` uses the result of the row `distill`.
    pub with: Option<PathBuf>,
    /// Number of threads of sessions and techniques; 0 for one per physical core in sessions, and for one per logical
    /// processor in techniques. Default: 0.
    pub threads: usize,
    /// Maximum number of timed rounds per visit and size of the input, 1 to [`limits::BENCHMARK_RUNS`]. There are three
    /// visits, each of which loads both models and times them in alternating runs. Default: 15.
    pub runs: usize,
    /// Time in seconds, above 0, after which a visit begins no further round, for each size of the input. At least
    /// three rounds are run, unless `runs` is less. Default: 4.
    pub max_seconds: f64,
    /// Maximum time in seconds of each training, above 0. Default: 120.
    pub training_seconds: f64,
    /// Function that returns more files to write, such as the table as an HTML page; `None` writes no more.
    pub more: Option<More>,
}

/// A function that takes the JSON of a table, and returns the names and contents of files, which are written to the
/// output folder.
pub type More = fn(&Value) -> Result<Vec<(String, String)>>;

impl Default for TableOptions {
    fn default() -> Self {
        TableOptions {
            data: None,
            rows: Vec::new(),
            with: None,
            threads: 0,
            runs: 15,
            max_seconds: 4.0,
            training_seconds: 120.0,
            more: None,
        }
    }
}

impl TableOptions {
    fn check(&self) -> Result<()> {
        let names = rows::names();
        if let Some(unknown) = self.rows.iter().find(|row| !names.contains(&row.as_str())) {
            bail!(InvalidArgument, "{unknown:?} is not a row; rows are {}", names.join(", "));
        }
        if self.runs == 0 || self.runs > limits::BENCHMARK_RUNS {
            bail!(InvalidArgument, "runs is {}; it must be 1 to {}", self.runs, limits::BENCHMARK_RUNS);
        }
        for (name, value) in [("max_seconds", self.max_seconds), ("training_seconds", self.training_seconds)] {
            if !(value > 0.0 && value.is_finite()) {
                bail!(InvalidArgument, "{name} is {value}; it must be above 0");
            }
        }
        if self.data.as_ref().is_some_and(|data| data.len() > limits::TEXT_BYTES) {
            bail!(LimitExceeded, "the data have more than {} bytes", limits::TEXT_BYTES);
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let data = self.data.as_ref().map(|data| json!({ "bytes": data.len(), "sha256": store::key(&json!(data)) }));
        json!({
            "data": data, "rows": self.rows, "with": self.with, "threads": self.threads, "runs": self.runs,
            "max_seconds": self.max_seconds, "training_seconds": self.training_seconds,
        })
    }
}

/// Measures the table of `models`, writes it to the folder `output`, and returns it. The folder, which is created if
/// necessary, contains `table.json`, `table.md` and the files of [`TableOptions::more`], which are written again after
/// every row. Its subfolder `packages` has the packages that were measured, and `rows` the measured rows.
///
/// A row that was measured before with the same model, recipe, options, machine and versions is read from `rows/` and
/// not measured again, so a run that was cancelled or killed continues where it stopped. A row that needs something
/// that is missing (such as a GPU or data), or whose technique fails on the model, stays in the table with the reason.
/// Progress stage: `table: ROW of MODEL`, in thousandths of a row.
///
/// Fails with [`Kind::InvalidArgument`] for no models, an unknown row or a value out of range, and with
/// [`Kind::LimitExceeded`] for data that are too long. Errors of the kinds `Cancelled`, `Timeout`, `Io` and `Internal`
/// end the table, as does a model of `models` that cannot be loaded or run.
pub fn table(
    runtime: &'static Runtime,
    models: &[Model],
    options: &TableOptions,
    output: &Path,
    call: &Call,
) -> Result<Table> {
    options.check()?;
    if models.is_empty() {
        bail!(InvalidArgument, "there is no model");
    }
    let store = Store::new(output)?;
    let mut table = Table {
        schema_version: SCHEMA_VERSION,
        operation: "table".to_owned(),
        library_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_version: runtime.version().to_owned(),
        machine: serde_json::to_value(Machine::here()).unwrap_or_default(),
        kernels: kernels(runtime),
        options: options.json(),
        models: Vec::new(),
    };
    let wanted = |name: &Name| options.rows.is_empty() || options.rows.iter().any(|row| row == name.name());
    let wanted: Vec<Name> = Name::ALL.iter().copied().filter(wanted).collect();
    let total = (models.len() * wanted.len()) as u64;
    let parts = options.data.as_deref().map(split);
    let parts = (parts.as_ref().map(|parts| parts.0.as_str()), parts.as_ref().map(|parts| parts.1.as_str()));
    for (index, model) in models.iter().enumerate() {
        let one = One::new(runtime, model, options, parts, &store, &table, call)?;
        table.models.push(one.header()?);
        for (at, &name) in wanted.iter().enumerate() {
            let done = (index * wanted.len() + at) as u64;
            let row = one.row(name, &table.models[index].rows, (done, total), call)?;
            table.models[index].rows.push(row);
            write(&store, &table, options.more)?;
        }
    }
    call.report(Stage::TABLE, 1000 * total, 1000 * total)?;
    Ok(table)
}

/// Returns the class of this library's kernels that sessions use, or the reason why they use those of ONNX Runtime.
fn kernels(runtime: &'static Runtime) -> String {
    match kernels_usable(runtime, &SessionOptions::default()) {
        Ok(()) => Class::detect().usable().name().to_owned(),
        Err(why) => format!("stock: {why}"),
    }
}

/// Writes the table as JSON and Markdown, and the files that `more` returns.
fn write(store: &Store, table: &Table, more: Option<More>) -> Result<()> {
    let json = serde_json::to_value(table).map_err(|e| error!(Internal, "the table cannot be written: {e}"))?;
    store.write("table.md", &markdown::of(table))?;
    for (name, content) in more.map_or_else(|| Ok(Vec::new()), |more| more(&json))? {
        store.write(&name, &content)?;
    }
    store.write("table.json", &(serde_json::to_string_pretty(&json).unwrap_or_default() + "\n"))
}

/// A model, with what its rows need.
struct One<'a> {
    model: &'a Model,
    options: &'a TableOptions,
    store: &'a Store,
    how: How,
    /// Part of the data to which results are fitted.
    fit: Option<&'a str>,
    data: Data<'a>,
    tokenizer: Option<Tokenizer>,
    load: Load,
    name: String,
    sha256: String,
    /// Facts that every row depends on besides the model and its recipe.
    common: Value,
}

impl<'a> One<'a> {
    fn new(
        runtime: &'static Runtime,
        model: &'a Model,
        options: &'a TableOptions,
        (fit, held): (Option<&'a str>, Option<&'a str>),
        store: &'a Store,
        table: &Table,
        call: &Call,
    ) -> Result<One<'a>> {
        let quiet = &Call { progress: None, ..*call };
        let tokenizer = Tokenizer::of(model)?;
        let TableOptions { threads, runs, max_seconds, .. } = *options;
        let how = How { runtime, threads, runs, max_seconds };
        let load = Load::new(&how, model, tokenizer.as_ref(), quiet)?;
        let mut common = json!({
            "machine": table.machine, "kernels": table.kernels, "library": table.library_version, "runtime": table.runtime_version,
            "options": table.options,
        });
        if let Some(options) = common["options"].as_object_mut() {
            options.remove("rows");
        }
        let data = Data { runtime, tokenizer: None, text: held, threads };
        let (name, sha256) = (name_of(model, &table.models), model.identity(quiet)?.sha256);
        Ok(One { model, options, store, how, fit, data, tokenizer, load, name, sha256, common })
    }

    fn data(&self) -> Data<'_> {
        Data { tokenizer: self.tokenizer.as_ref(), ..self.data }
    }

    /// Returns the table of the model without rows.
    fn header(&self) -> Result<ModelTable> {
        let task = serde_json::to_value(self.model.card().task).unwrap_or_default();
        Ok(ModelTable {
            name: self.name.clone(),
            path: self.model.path().map_or_else(String::new, |path| path.display().to_string()),
            sha256: self.sha256.clone(),
            bytes: self.shipped()?,
            task: task.as_str().unwrap_or_default().to_owned(),
            inputs: self.load.describe(),
            data: self.data().describe(self.model),
            rows: Vec::new(),
        })
    }

    /// Returns the size in bytes of the original with its tokenizer and configuration, as a package has them.
    fn shipped(&self) -> Result<u64> {
        let mut bytes = self.model.bytes();
        for file in &self.model.card().side_files {
            bytes += file.content.read()?.len() as u64;
        }
        Ok(bytes)
    }

    /// Returns a row: a measured one from the store, or a new one. `before` has the finished rows of the model; `done`
    /// of `total` rows are finished.
    fn row(&self, name: Name, before: &[Row], (done, total): (u64, u64), call: &Call) -> Result<Row> {
        let stage = format!("table: {} of {}", name.name(), self.name);
        let progress = |p: Progress<'_>| match call.progress {
            None => std::ops::ControlFlow::Continue(()),
            Some(progress) => {
                let share = (1000 * p.done).checked_div(p.total).unwrap_or(0).min(999);
                let share = if p.stage == MEASURE.name { 500 + share / 2 } else { share / 2 };
                let unit = Stage::TABLE.unit;
                progress(Progress { stage: &stage, done: 1000 * done + share, total: 1000 * total, unit })
            }
        };
        let call = &Call { progress: Some(&progress), ..*call };
        call.report(Stage::LOAD, 0, 0)?;
        let member = self.member(before);
        let given = Given {
            task: self.model.card().task,
            data: self.options.data.is_some(),
            training_seconds: self.options.training_seconds,
            member: member.as_deref(),
        };
        let plan = rows::plan(name, &given);
        let mut row = blank(&plan);
        if let Some(lacks) = plan.lacks {
            (row.state, row.reason) = (State::Skipped, Some(lacks.to_owned()));
            return Ok(row);
        }
        if name == Name::TensorRt && tensorrt::device().is_err() {
            (row.state, row.reason) = (State::Skipped, Some("needs an NVIDIA GPU, which is not here".to_owned()));
            return Ok(row);
        }
        let made_of = json!({ "model": self.sha256, "recipe": plan.recipe, "data": self.common["options"]["data"],
                              "library": self.common["library"], "runtime": self.common["runtime"] });
        let (made, key) = (store::key(&made_of), store::key(&json!([made_of, self.common])));
        if let Some(mut row) = self.store.row(&key) {
            row.verdicts = promise::verdicts(&row, plan.because);
            return Ok(row);
        }
        match self.measured(&plan, &mut row, made, call) {
            Ok(()) => {
                row.verdicts = promise::verdicts(&row, plan.because);
                self.store.keep(&key, &row)?;
            }
            Err(e) if matches!(e.kind(), Kind::Cancelled | Kind::Timeout | Kind::Io | Kind::Internal) => return Err(e),
            Err(e) => (row.state, row.reason) = (State::Failed, Some(e.to_string())),
        }
        Ok(row)
    }

    /// Returns the path of the second model of the ensemble: a named one, or the result of the row `distill`; `None` if
    /// there is none.
    fn member(&self, before: &[Row]) -> Option<String> {
        if let Some(path) = &self.options.with {
            return Some(path.display().to_string());
        }
        let student = before.iter().find(|row| row.name == Name::Distill.name() && row.state == State::Measured)?;
        student.package.as_ref().map(|name| self.store.package(name).display().to_string())
    }

    /// Writes the package of a row, unless it exists, and measures it.
    fn measured(&self, plan: &Plan, row: &mut Row, key: String, call: &Call) -> Result<()> {
        let mut name = format!("{}-{}", self.name, plan.name.name());
        if plan.name == Name::TensorRt {
            name += ".engine";
        }
        let path = self.store.package(&name);
        let made = match self.store.made(&name, &key) {
            Some(made) => made,
            None => self.make(plan, &path, key, call)?,
        };
        self.store.keep_made(&name, &made)?;
        (row.made_seconds, row.actions, row.notes) = (made.seconds, made.actions, made.notes);
        row.package = Some(name);
        row.bytes = size_of(&path);
        row.smaller = 1.0 - row.bytes as f64 / self.shipped()?.max(1) as f64;
        if plan.name == Name::TensorRt {
            return self.engine(&path, row, call);
        }
        let result = Model::load(&path)?;
        let quiet = &Call { progress: None, ..*call };
        let mut step = |share: f64| call.report(MEASURE, (800.0 * share) as u64, 1000);
        let found = measure(&self.how, self.model, &result, &self.load, quiet, &mut step)?;
        (row.load_ms, row.resident_bytes, row.speed) = (Some(found.load_ms), Some(found.resident_bytes), found.speed);
        row.quality = self.data().compare(self.model, &result, quiet)?;
        call.report(MEASURE, 1000, 1000)
    }

    fn make(&self, plan: &Plan, path: &Path, key: String, call: &Call) -> Result<Made> {
        let recipe = Recipe::of(Value::Array(plan.recipe.clone()))?;
        let given = ApplyOptions { data: self.fit, threads: self.options.threads };
        let reloaded = match (plan.name, self.model.path()) {
            (Name::TensorRt, Some(path)) => Some(open::load(path, &LoadOptions { dialect: recipe.dialect() })?),
            _ => None,
        };
        let model = reloaded.as_ref().unwrap_or(self.model);
        let report = apply(self.how.runtime, model, &recipe, path, &given, call)?;
        Ok(Made { key, seconds: report.seconds, actions: actions(&report), notes: report.warnings })
    }

    /// Measures an engine with one size of the input, with inputs and outputs in host memory.
    fn engine(&self, path: &Path, row: &mut Row, call: &Call) -> Result<()> {
        // The engine is trusted, because this run or an earlier one built it in this folder.
        let engine = EngineFile::new(path, &OpenOptions { trust: true, ..OpenOptions::default() }, 0)?;
        let mut options = BenchmarkOptions { threads: self.options.threads, ..BenchmarkOptions::default() };
        options.inputs.sequence_length = 128;
        let (speed, quality) =
            benchmark_engine(self.how.runtime, self.model, &engine, self.tokenizer.as_ref(), &options, call)?;
        let exactly = |both: benchmark::Both<f64>| Pair {
            original: Interval::exactly(both.original),
            result: Interval::exactly(both.result),
        };
        row.load_ms = Some(exactly(speed.load_ms));
        row.resident_bytes = speed.resident_bytes.map(|both| [both.original, both.result]);
        let medians =
            benchmark::Both { original: speed.latency_ms.original.median, result: speed.latency_ms.result.median };
        let speedup = Interval::new(speed.speedup.median, (speed.speedup.low, speed.speedup.high));
        row.speed = vec![Speed { size: shape_name(&speed.input_shapes), latency_ms: exactly(medians), speedup }];
        let named = [("cosine", quality.cosine), ("kl", quality.kl), ("top1_agreement", quality.top1_agreement)];
        let figure = |(name, value): (&str, Option<f64>)| {
            Some(super::Figure { name: name.to_owned(), value: Interval::exactly(value?) })
        };
        row.quality = named.into_iter().filter_map(figure).collect();
        Ok(())
    }
}

/// Returns a row that has not been measured.
fn blank(plan: &Plan) -> Row {
    let Promise { smaller, speedup, loss } = plan.promise.clone();
    Row {
        name: plan.name.name().to_owned(),
        title: plan.title.to_owned(),
        state: State::Measured,
        reason: None,
        recipe: plan.recipe.clone(),
        promise: Promise { smaller, speedup, loss },
        package: None,
        bytes: 0,
        smaller: 0.0,
        made_seconds: 0.0,
        load_ms: None,
        resident_bytes: None,
        speed: Vec::new(),
        quality: Vec::new(),
        verdicts: Vec::new(),
        actions: Vec::new(),
        notes: Vec::new(),
    }
}
