//! ONNX Runtime's TensorRT provider as a builder of engines. It writes a model (by convention `X_ctx.onnx`) in which
//! `EPContext` nodes with embedded engines replace the subgraphs that TensorRT supports. It builds only for the first
//! GPU of this machine.

use super::manifest::{self, FORMAT, Key, Manifest};
use super::options::TensorRtOptions;
use super::profile::Profiles;
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::files;
use crate::limits;
use crate::model::Model;
use crate::onnx::proto::ModelProto;
use crate::runtime::driver::Driver;
use crate::runtime::{Execution, Provider, ProviderChoice, Runtime, Session, SessionOptions, available};
use std::path::Path;

/// Fails with the reason if ONNX Runtime's TensorRT provider is not available.
pub(super) fn starts(runtime: &'static Runtime) -> Result<()> {
    let found = available(runtime, 0).into_iter().find(|found| found.provider == Provider::TensorRt);
    match found.and_then(|found| found.reason) {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

/// Returns the compute capability of the GPU that the provider builds for, for example 89 for 8.9. Fails with
/// `DeviceMissing` if there is no driver or no GPU.
pub(super) fn capability() -> Result<i32> {
    Driver::get()?.capability(0)
}

/// Builds `output` from a graph, replacing an existing file, writes the manifest next to it, and returns the manifest,
/// whose `error` is `None`. The session that builds the file is dropped before the return, so that others can read it.
///
/// Fails with [`crate::error::Kind::InvalidArgument`] if the path is not UTF-8, with `Unsupported` for several
/// profiles, with `Io` if a file cannot be written, and like [`starts`] and [`Session::new`].
pub(super) fn make(
    runtime: &'static Runtime,
    graph: ModelProto,
    output: &Path,
    profiles: &Profiles,
    options: &TensorRtOptions,
    key: Key,
    call: &Call,
) -> Result<Manifest> {
    starts(runtime)?;
    let absolute = std::path::absolute(output).at(|| output.display())?;
    let Some(target) = absolute.to_str() else {
        bail!(InvalidArgument, "the path {:?} is not UTF-8", output.display())
    };
    // A model whose inputs have fixed sizes has no profile.
    let profile = profiles.shapes.first().map_or(&[][..], Vec::as_slice);
    if profiles.shapes.len() > 1 {
        bail!(Unsupported, "ONNX Runtime's provider supports one profile here; {} are given", profiles.shapes.len());
    }
    let session = session_options(profiles, profile, options, target);
    let graph_sha256 = manifest::sha256(&crate::onnx::save::encode(&graph).concat());
    // ONNX Runtime does not replace an existing file.
    match std::fs::remove_file(output) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).at(|| output.display()),
        _ => {}
    }
    Session::new(runtime, &Model::from_proto(graph), &session, call)?;
    let made = files::map(&files::open(output)?, limits::DATA_FILE_BYTES).at(|| output.display())?;
    let (engine_bytes, engine_sha256) = (made.len() as u64, manifest::sha256(&made));
    let made = Manifest { format: FORMAT, key, engine_bytes, engine_sha256, graph_sha256, error: None };
    files::replace(&manifest::path_of(output), made.to_json().as_bytes())?;
    Ok(made)
}

/// Returns the options of the session that writes engines into the file `target`.
fn session_options(
    profiles: &Profiles,
    profile: &[[Vec<i64>; 3]],
    options: &TensorRtOptions,
    target: &str,
) -> SessionOptions {
    let list = |which: usize| {
        let one = |((name, _), three): (&(String, usize), &[Vec<i64>; 3])| {
            let dims: Vec<String> = three[which].iter().map(i64::to_string).collect();
            format!("{name}:{}", dims.join("x"))
        };
        profiles.inputs.iter().zip(profile).map(one).collect::<Vec<_>>().join(",")
    };
    let mut extra: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| extra.push((name.to_owned(), value));
    if !profiles.inputs.is_empty() {
        add("trt_profile_min_shapes", list(0));
        add("trt_profile_opt_shapes", list(1));
        add("trt_profile_max_shapes", list(2));
    }
    if options.workspace > 0 {
        add("trt_max_workspace_size", options.workspace.to_string());
    }
    if let Some(level) = options.optimization_level {
        add("trt_builder_optimization_level", level.to_string());
    }
    add("trt_sparsity_enable", u8::from(options.sparsity).to_string());
    let config = [("ep.context_enable", "1"), ("ep.context_embed_mode", "1"), ("ep.context_file_path", target)];
    SessionOptions {
        threads: options.threads,
        execution: Execution {
            provider: ProviderChoice::TensorRt,
            provider_options: extra,
            session_config: config.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            ..Execution::default()
        },
        ..SessionOptions::default()
    }
}
