//! The execution providers that this library supports, the choice of one by the caller, and their availability.

use super::kernels::{Kernels, SessionPrecision};
use super::kv_cache::KvCacheType;
use super::placement::Placement;
use super::{Runtime, kernels, register};
use crate::choice::choice;
use crate::error::{Error, Result, bail};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::path::PathBuf;

/// An execution provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Provider {
    /// The CPU, which is always available.
    Cpu,
    /// An NVIDIA GPU with ONNX Runtime's CUDA kernels; nodes without a CUDA kernel run on the CPU.
    Cuda,
    /// An NVIDIA GPU with TensorRT engines for parts of the graph; the other nodes run as with [`Provider::Cuda`].
    TensorRt,
}

choice! {
    /// The requested execution provider.
    pub enum ProviderChoice: optimize_provider_t = Cpu {
        /// The CPU.
        Cpu = 0, "cpu";
        /// CUDA; the session fails if it is not available.
        Cuda = 1, "cuda";
        /// TensorRT; the session fails if it is not available.
        TensorRt = 2, "tensorrt";
        /// TensorRT, otherwise CUDA, otherwise the CPU. The session reports the selected provider, and why the ones
        /// before it were not selected.
        Auto = 3, "auto";
    }
}

/// The requested execution provider, with its device and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Execution {
    /// Requested provider. Default: [`ProviderChoice::Cpu`].
    pub provider: ProviderChoice,
    /// Kernels that run the nodes of the model on the CPU. Default: [`Kernels::Auto`].
    pub kernels: Kernels,
    /// Precision of float32 products on the CPU. Any value but `Fp32` needs this library's kernels: a session fails
    /// with [`crate::error::Kind::BackendMissing`] where they cannot be used, and with `InvalidArgument` if `kernels`
    /// is `Stock` or `provider` is `Cuda` or `TensorRt`.
    #[serde(skip_serializing_if = "SessionPrecision::is_fp32")]
    pub precision: SessionPrecision,
    /// Element type of the KV cache of a decoder. Any value but `Float32` needs this library's kernels: a session fails
    /// with [`crate::error::Kind::BackendMissing`] where they cannot be used. It fails with `InvalidArgument` if
    /// `kernels` is `Stock` or `provider` is not `Cpu`, and with `Unsupported` for a model without a cache that they
    /// read and write. Inputs and outputs of the session that are the cache have this type.
    #[serde(skip_serializing_if = "KvCacheType::is_float32")]
    pub kv_cache_type: KvCacheType,
    /// Index of the GPU, from 0. It must be 0 if `provider` is `Cpu`; otherwise the session fails with
    /// `InvalidArgument`.
    pub device_id: u32,
    /// Absolute path of the folder in which TensorRT engines and timings are cached, for the providers `TensorRt` and
    /// `Auto`; `None` builds them for every session. With another provider or a relative path, the session fails with
    /// `InvalidArgument`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_cache: Option<PathBuf>,
    /// Whether the author of the model is trusted. Engines embedded in a model (`EPContext`) contain code; sessions on
    /// a GPU reject them if this is `false`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trust_engines: bool,
    /// Additional options as pairs of name and value: those of the GPU provider or, on the CPU, of this library's
    /// kernels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub provider_options: Vec<(String, String)>,
    /// Additional entries of ONNX Runtime's session configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub session_config: Vec<(String, String)>,
}

impl Provider {
    /// All providers, in the order in which `auto` tries them.
    pub const ALL: [Provider; 3] = [Provider::TensorRt, Provider::Cuda, Provider::Cpu];

    /// Returns the name of the provider in options and reports: `cpu`, `cuda` or `tensorrt`.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Cpu => "cpu",
            Provider::Cuda => "cuda",
            Provider::TensorRt => "tensorrt",
        }
    }

    /// Returns ONNX Runtime's name for the provider.
    pub(super) fn runtime_name(self) -> &'static str {
        match self {
            Provider::Cpu => "CPUExecutionProvider",
            Provider::Cuda => "CUDAExecutionProvider",
            Provider::TensorRt => "TensorrtExecutionProvider",
        }
    }

    /// Returns the provider with this name in ONNX Runtime; `None` if it is not one of these.
    pub(super) fn of_runtime_name(name: &str) -> Option<Provider> {
        Provider::ALL.into_iter().find(|provider| provider.runtime_name() == name)
    }
}

impl ProviderChoice {
    fn of(provider: Provider) -> ProviderChoice {
        match provider {
            Provider::Cpu => ProviderChoice::Cpu,
            Provider::Cuda => ProviderChoice::Cuda,
            Provider::TensorRt => ProviderChoice::TensorRt,
        }
    }

    /// Returns the providers to try, in order.
    pub fn candidates(self) -> &'static [Provider] {
        match self {
            ProviderChoice::Cpu => &[Provider::Cpu],
            ProviderChoice::Cuda => &[Provider::Cuda],
            ProviderChoice::TensorRt => &[Provider::TensorRt],
            ProviderChoice::Auto => &Provider::ALL,
        }
    }
}

impl Execution {
    /// Returns this execution with a fixed provider, and a placement on it without numbers of nodes. For `auto`, the
    /// provider is the first one that can be started on this machine; the placement lists the others that were tried.
    /// Options that the provider does not use are dropped. Fails with `InvalidArgument` if options contradict each
    /// other, or if the engine cache is not an absolute path.
    pub fn settle(&self, runtime: &Runtime) -> Result<(Execution, Placement)> {
        self.check()?;
        let mut passed_over = Vec::new();
        let candidates = self.provider.candidates();
        for (index, &provider) in candidates.iter().enumerate() {
            let found = if candidates.len() > 1 { register::probe(runtime, provider, self.device_id) } else { Ok(()) };
            match found {
                Err(e) if index + 1 < candidates.len() => passed_over.push(format!("{}: {e}", provider.name())),
                _ if provider == Provider::Cpu => {
                    // With `auto`, the provider options are meant for a device, and none can be used.
                    let options = if candidates.len() == 1 { self.provider_options.clone() } else { Vec::new() };
                    let settled = Execution {
                        kernels: self.kernels,
                        precision: self.precision,
                        kv_cache_type: self.kv_cache_type,
                        provider_options: options,
                        session_config: self.session_config.clone(),
                        ..Execution::default()
                    };
                    return Ok((settled, Placement { passed_over, ..Placement::on(provider, 0) }));
                }
                _ => {
                    let choice = ProviderChoice::of(provider);
                    let engine_cache = self.engine_cache.clone().filter(|_| provider == Provider::TensorRt);
                    let device_id = self.device_id;
                    let placement = Placement { passed_over, ..Placement::on(provider, device_id) };
                    return Ok((Execution { provider: choice, engine_cache, ..self.clone() }, placement));
                }
            }
        }
        bail!(Internal, "there is no provider to try")
    }

    /// Returns whether options request what only this library's kernels do.
    pub(super) fn needs_kernels(&self) -> bool {
        !self.precision.is_fp32() || !self.kv_cache_type.is_float32()
    }

    /// Fails with `InvalidArgument` if options contradict each other, or if the engine cache is not an absolute path.
    pub(super) fn check(&self) -> Result<()> {
        if self.provider == ProviderChoice::Cpu && (self.device_id != 0 || self.engine_cache.is_some()) {
            let given = if self.device_id != 0 { "a device" } else { "an engine cache" };
            bail!(InvalidArgument, "{given} is given, but the provider is cpu, which does not use it");
        }
        if self.provider == ProviderChoice::Cuda && self.engine_cache.is_some() {
            bail!(InvalidArgument, "an engine cache is given, but the provider is cuda, which builds no engines");
        }
        let precision = Some(self.precision.name()).filter(|_| !self.precision.is_fp32());
        let cache = Some(self.kv_cache_type.name()).filter(|_| !self.kv_cache_type.is_float32());
        let given = precision.map(|value| ("precision", value)).or(cache.map(|value| ("kv_cache_type", value)));
        if let Some((option, value)) = given {
            if self.kernels == Kernels::Stock {
                bail!(InvalidArgument, "{option} {value} needs this library's kernels, but kernels is stock");
            }
            if matches!(self.provider, ProviderChoice::Cuda | ProviderChoice::TensorRt) {
                let other = self.provider.name();
                bail!(InvalidArgument, "{option} {value} is for the CPU, but the provider is {other}");
            }
        }
        match &self.engine_cache {
            // ONNX Runtime resolves a relative path against the working directory of the process, which may change.
            Some(folder) if !folder.is_absolute() => {
                bail!(InvalidArgument, "the engine cache {:?} is not an absolute path", folder.display())
            }
            _ => Ok(()),
        }
    }
}

/// A provider, and whether sessions can run on it on this machine.
#[derive(Debug, Clone)]
pub struct Availability {
    /// Provider that was tried.
    pub provider: Provider,
    /// Index of the GPU; 0 for the CPU.
    pub device_id: u32,
    /// Reason why the provider is not available; `None` if it is.
    pub reason: Option<Error>,
    /// For the CPU: the reason why this library's kernels are not available; `None` if they are, and for GPUs.
    pub kernels_unused: Option<String>,
}

impl Serialize for Availability {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("provider", &self.provider)?;
        map.serialize_entry("device_id", &self.device_id)?;
        map.serialize_entry("available", &self.reason.is_none())?;
        if let Some(reason) = &self.reason {
            map.serialize_entry("status", reason.kind().name())?;
            map.serialize_entry("reason", reason.message())?;
        }
        if self.provider == Provider::Cpu {
            map.serialize_entry("kernels", &self.kernels_unused.is_none())?;
        }
        if let Some(reason) = &self.kernels_unused {
            map.serialize_entry("kernels_unused", reason)?;
        }
        map.end()
    }
}

/// Returns the availability of every provider in the order of [`Provider::ALL`], for the GPU with the index
/// `device_id`. A provider is available if the open ONNX Runtime contains it *and* it can be started now. Reasons are,
/// among others, `BackendMissing` for a provider that this ONNX Runtime does not contain or cannot load, with ONNX
/// Runtime's message, and `DeviceMissing` if there is no driver or no such GPU.
pub fn available(runtime: &'static Runtime, device_id: u32) -> Vec<Availability> {
    let one = |provider| {
        let cpu = provider == Provider::Cpu;
        let device_id = if cpu { 0 } else { device_id };
        let kernels_unused = if cpu { kernels::registered(runtime).err() } else { None };
        Availability {
            provider,
            device_id,
            reason: register::probe(runtime, provider, device_id).err(),
            kernels_unused,
        }
    };
    Provider::ALL.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::runtime::test_runtime;

    #[test]
    fn there_is_a_processor_and_what_else_there_is_not_has_a_reason() {
        let found = available(test_runtime(), 0);
        assert_eq!(found.iter().map(|f| f.provider.name()).collect::<Vec<_>>(), ["tensorrt", "cuda", "cpu"]);
        assert!(found[2].reason.is_none());
        for Availability { provider, reason, .. } in &found[..2] {
            let Some(e) = reason else { continue };
            assert!(matches!(e.kind(), Kind::BackendMissing | Kind::DeviceMissing), "{provider:?}: {e}");
            assert!(e.message().contains(test_runtime().version()) || e.kind() == Kind::DeviceMissing, "{e}");
        }
    }

    #[test]
    fn names_are_read_and_written() {
        for name in ["cpu", "cuda", "tensorrt", "auto"] {
            assert_eq!(name.parse::<ProviderChoice>().unwrap().name(), name);
        }
        let e = "gpu".parse::<ProviderChoice>().unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
        assert!(e.message().contains("cpu, cuda, tensorrt, auto"), "{e}");
        for provider in Provider::ALL {
            assert_eq!(Provider::of_runtime_name(provider.runtime_name()), Some(provider));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let with = |provider, device_id, cache: Option<&str>| {
            let engine_cache = cache.map(PathBuf::from);
            let execution = Execution { provider, device_id, engine_cache, ..Execution::default() };
            execution.check().err().map(|e| (e.kind(), e.message().to_owned()))
        };
        assert_eq!(with(ProviderChoice::Cpu, 0, None), None);
        assert_eq!(with(ProviderChoice::Auto, 3, Some("/cache")), None);
        let refused = [
            (with(ProviderChoice::Cpu, 1, None), "a device"),
            (with(ProviderChoice::Cpu, 0, Some("/cache")), "an engine cache"),
            (with(ProviderChoice::Cuda, 0, Some("/cache")), "builds no engines"),
            (with(ProviderChoice::TensorRt, 0, Some("cache")), "absolute"),
        ];
        for (answer, word) in refused {
            let (kind, message) = answer.unwrap();
            assert_eq!(kind, Kind::InvalidArgument);
            assert!(message.contains(word), "{message}");
        }
    }
}
