//! TensorRT engines in packages: variants for machines with an NVIDIA GPU, next to graphs for other machines.

use super::manifest::Variant;
use crate::call::Call;
use crate::error::{Context, Result, bail};
use crate::files;
use crate::limits;
use crate::model::Model;
use crate::tensorrt::{Manifest, device};
use bytes::Bytes;
use std::path::Path;

/// The provider of an engine variant.
pub const PROVIDER: &str = "tensorrt";

/// The path and the content of a file of the package.
type File = (String, Bytes);

/// Returns the variant of the engine file `path` of `model`, with the files to add to the package: the engine and its
/// manifest. Fails with [`crate::error::Kind::InvalidArgument`] if the engine has no manifest next to it, with
/// `InvalidModel` if the manifest describes a different file, and with `Mismatch` if the engine was built from another
/// model.
pub fn take(model: &Model, path: &Path, call: &Call) -> Result<(Variant, [File; 2])> {
    let Some(made) = Manifest::read(path)? else {
        bail!(InvalidArgument, "{}: the engine has no manifest next to it", path.display());
    };
    let bytes = files::map(&files::open(path)?, limits::DATA_FILE_BYTES).at(|| path.display())?;
    if !made.is_of(&bytes) {
        bail!(InvalidModel, "{}: the engine does not match its manifest (SHA-256 differs)", path.display());
    }
    let own = model.identity(call)?.sha256;
    if made.key.model_sha256 != own {
        let other = &made.key.model_sha256;
        bail!(Mismatch, "{}: the engine belongs to another model: SHA-256 {other}, not {own}", path.display());
    }
    let precision = made.key.precision.name().to_owned();
    let name = format!("{PROVIDER}-{precision}");
    let file = format!("model/{name}/model.engine");
    let beside = (format!("{file}.json"), Bytes::from(made.to_json()));
    let (architecture, features, runtime, compiled, check) = (None, Vec::new(), None, None, None);
    let provider = PROVIDER.to_owned();
    let variant = Variant {
        name,
        precision,
        ahead: true,
        file: file.clone(),
        provider,
        architecture,
        features,
        runtime,
        compiled,
        check,
    };
    Ok((variant, [(file, bytes), beside]))
}

/// Returns the reason why a session does not use a variant with the execution provider `provider` on this machine.
pub fn obstacle(provider: &str) -> String {
    match device() {
        _ if provider != PROVIDER => format!("it needs the provider {provider:?}, which is not available"),
        Err(none) => format!("it needs an NVIDIA device: {}", none.message()),
        Ok(_) => "it is a TensorRT engine, which optimize_package_engine opens".to_owned(),
    }
}
