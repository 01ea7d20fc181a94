//! Sessions of graphs that were prepared for this processor: optimized by ONNX Runtime, or compiled for this library's
//! kernels.

use super::library::guarded;
use super::providers::Provider;
use super::session::On;
use super::{OptimizationLevel, Runtime, Session, SessionOptions, SessionPrecision, kernels};
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::model::{Model, Prepared};
use std::path::Path;

/// A function that returns the variant of a model to create a session from; `None` if there is none. Its argument is
/// `Ok` if this library's kernels can be used, or else the reason why not.
pub type Choose<'c> = dyn Fn(&std::result::Result<(), String>) -> Result<Option<Prepared>> + 'c;

impl Session {
    /// Returns a session on the CPU of a prepared graph. A graph that was optimized ahead of time or compiled is not
    /// optimized again, and its weights are read where they are mapped, in memory that processes share, if ONNX Runtime
    /// accepts that. Fails like [`Session::new`].
    pub(crate) fn open_prepared(
        runtime: &'static Runtime,
        prepared: &Prepared,
        options: &SessionOptions,
        call: &Call,
    ) -> Result<Session> {
        guarded("making a session", || open(runtime, prepared, options, call)).at(|| &prepared.name)
    }

    /// Returns a session on the CPU of the prepared graph that `choose` returns. If it cannot be opened although this
    /// library's kernels can be used, `choose` is called again with the reason in place of `Ok`, and the placement of
    /// the session contains the reason.
    pub(crate) fn of_prepared(
        runtime: &'static Runtime,
        choose: &Choose<'_>,
        options: &SessionOptions,
        call: &Call,
    ) -> Result<Session> {
        let none = || bail!(Internal, "no variant was chosen");
        guarded("making a session", || Session::make_prepared(runtime, choose, &none, options, call))
    }

    /// Returns a session like [`Session::of_prepared`]; `otherwise` creates it if `choose` returns `None`.
    pub(super) fn make_prepared(
        runtime: &'static Runtime,
        choose: &Choose<'_>,
        otherwise: &dyn Fn() -> Result<Session>,
        options: &SessionOptions,
        call: &Call,
    ) -> Result<Session> {
        let of = |prepared: Option<Prepared>| match prepared {
            Some(prepared) if prepared.compiled.is_some() => {
                open(runtime, &prepared, options, call).at(|| &prepared.name)
            }
            Some(prepared) => open(runtime, &prepared, options, call),
            None => otherwise(),
        };
        let usable = kernels::usable(runtime, options);
        let reason = match choose(&usable).and_then(of) {
            Err(e) if usable.is_ok() && !e.kind().ends_a_call() => e.to_string(),
            other => return other,
        };
        let mut session = of(choose(&Err(reason.clone()))?)?;
        session.pass_over(Some(reason));
        Ok(session)
    }

    /// Returns a session of a compiled model. `path` is the file of the compiled graph.
    fn make_compiled(
        runtime: &'static Runtime,
        model: &Model,
        path: &Path,
        options: &SessionOptions,
        call: &Call,
    ) -> Result<Session> {
        call.check()?;
        options.execution.check()?;
        let mut options = SessionOptions { optimization_level: OptimizationLevel::Disabled, ..options.clone() };
        options.execution.session_config.push(kernels::context_path(path)?);
        Session::make_shared(runtime, model, true, &options, On(Provider::Cpu, true), call)
    }

    /// Compiles `model` for this library's kernels and this processor. Writes the graph, in which each group of nodes
    /// is one `EPContext` node, to `path`, and the packed weights of these groups to `path` with the suffix `.packed`.
    /// Returns the number of groups; the files are only valid if it is not 0. Fails with `BackendMissing` if the
    /// kernels cannot be used, and otherwise like [`Session::new`].
    pub(crate) fn compile(
        runtime: &'static Runtime,
        model: &Model,
        precision: SessionPrecision,
        path: &Path,
        call: &Call,
    ) -> Result<usize> {
        let mut options = SessionOptions { optimization_level: OptimizationLevel::Basic, ..SessionOptions::default() };
        options.execution.precision = precision;
        let entry = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let config = [("ep.context_enable", "1"), ("ep.context_embed_mode", "0")].map(entry);
        options.execution.session_config.extend(config);
        options.execution.session_config.push(kernels::context_path(path)?);
        guarded("compiling a model", || {
            let session = Session::make_shared(runtime, model, false, &options, On(Provider::Cpu, true), call)?;
            Ok(session.placement().groups)
        })
    }
}

fn open(runtime: &'static Runtime, prepared: &Prepared, options: &SessionOptions, call: &Call) -> Result<Session> {
    match &prepared.compiled {
        Some(path) => Session::make_compiled(runtime, &prepared.model, path, options, call),
        None => Session::make_of(runtime, &prepared.model, prepared.ahead, options, Provider::Cpu, call),
    }
}
