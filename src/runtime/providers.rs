//! The execution providers: what a session can run on, and what is asked for.

use super::session::Placement;
use super::{Runtime, register};
use crate::error::{Error, Result, bail, error};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;

/// Something a session can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Provider {
    /// The processor; always there.
    Cpu,
    /// An NVIDIA device, with the kernels of ONNX Runtime.
    Cuda,
    /// An NVIDIA device, with engines that TensorRT builds of parts of the graph; the rest runs on CUDA.
    TensorRt,
}

/// Which provider a session is asked to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderChoice {
    /// The processor.
    #[default]
    Cpu,
    /// CUDA or an error.
    Cuda,
    /// TensorRT or an error.
    TensorRt,
    /// TensorRT, else CUDA, else the processor. The session says which, and why not the ones before.
    Auto,
}

/// Where a session runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Execution {
    /// See [`ProviderChoice`].
    pub provider: ProviderChoice,
    /// Number of the device, from 0; not for the processor.
    pub device_id: u32,
    /// TensorRT: folder in which engines and timings are kept. `None` builds them anew for every session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_cache: Option<PathBuf>,
    /// The model's maker is trusted: engines that are ready in it (`EPContext`) are code, and are refused without.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trust_engines: bool,
    /// More options of ONNX Runtime's provider, by its names for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub provider_options: Vec<(String, String)>,
    /// More entries of ONNX Runtime's session configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub session_config: Vec<(String, String)>,
}

impl Provider {
    /// All of them, best first.
    pub const ALL: [Provider; 3] = [Provider::TensorRt, Provider::Cuda, Provider::Cpu];

    /// The name users know it by: `cpu`, `cuda`, `tensorrt`.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Cpu => "cpu",
            Provider::Cuda => "cuda",
            Provider::TensorRt => "tensorrt",
        }
    }

    /// ONNX Runtime's name of it.
    pub(super) fn runtime_name(self) -> &'static str {
        match self {
            Provider::Cpu => "CPUExecutionProvider",
            Provider::Cuda => "CUDAExecutionProvider",
            Provider::TensorRt => "TensorrtExecutionProvider",
        }
    }

    /// The provider that ONNX Runtime knows by a name.
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

    /// `cpu`, `cuda`, `tensorrt`, `auto`.
    pub fn name(self) -> &'static str {
        match self {
            ProviderChoice::Auto => "auto",
            one => one.candidates()[0].name(),
        }
    }

    /// What to try, in this order.
    pub fn candidates(self) -> &'static [Provider] {
        match self {
            ProviderChoice::Cpu => &[Provider::Cpu],
            ProviderChoice::Cuda => &[Provider::Cuda],
            ProviderChoice::TensorRt => &[Provider::TensorRt],
            ProviderChoice::Auto => &Provider::ALL,
        }
    }
}

impl FromStr for ProviderChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<ProviderChoice> {
        let all = [ProviderChoice::Cpu, ProviderChoice::Cuda, ProviderChoice::TensorRt, ProviderChoice::Auto];
        let found = all.into_iter().find(|choice| choice.name() == name);
        found.ok_or_else(|| error!(InvalidArgument, "provider is {name:?}; it must be auto, cpu, cuda or tensorrt"))
    }
}

impl Execution {
    /// The one that is meant: of `auto` the first provider that can be started here. With where that is.
    pub fn settle(&self, runtime: &Runtime) -> Result<(Execution, Placement)> {
        self.check()?;
        let mut passed_over = Vec::new();
        let candidates = self.provider.candidates();
        for (index, &provider) in candidates.iter().enumerate() {
            let found = if candidates.len() > 1 { register::probe(runtime, provider, self.device_id) } else { Ok(()) };
            match found {
                Err(e) if index + 1 < candidates.len() => passed_over.push(format!("{}: {e}", provider.name())),
                _ if provider == Provider::Cpu => {
                    let placement =
                        Placement { provider, device_id: 0, nodes: BTreeMap::new(), passed_over, weights_copied: None };
                    return Ok((Execution::default(), placement));
                }
                _ => {
                    let choice = ProviderChoice::of(provider);
                    let engine_cache = self.engine_cache.clone().filter(|_| provider == Provider::TensorRt);
                    let device_id = self.device_id;
                    let placement =
                        Placement { provider, device_id, nodes: BTreeMap::new(), passed_over, weights_copied: None };
                    return Ok((Execution { provider: choice, engine_cache, ..self.clone() }, placement));
                }
            }
        }
        bail!(Internal, "there is no provider to try")
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<()> {
        if self.provider == ProviderChoice::Cpu && (self.device_id != 0 || self.engine_cache.is_some()) {
            let given = if self.device_id != 0 { "a device" } else { "an engine cache" };
            bail!(InvalidArgument, "{given} is given, but the provider is cpu, which does not use it");
        }
        if self.provider == ProviderChoice::Cuda && self.engine_cache.is_some() {
            bail!(InvalidArgument, "an engine cache is given, but the provider is cuda, which builds no engines");
        }
        match &self.engine_cache {
            // ONNX Runtime reads it against the folder of the process, which is another one tomorrow.
            Some(folder) if !folder.is_absolute() => {
                bail!(InvalidArgument, "the engine cache {:?} is not an absolute path", folder.display())
            }
            _ => Ok(()),
        }
    }
}

/// Whether sessions can run on a provider here.
#[derive(Debug, Clone)]
pub struct Availability {
    /// Which.
    pub provider: Provider,
    /// Number of the device; 0 for the processor.
    pub device_id: u32,
    /// Why they cannot; `None` if they can.
    pub reason: Option<Error>,
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
        map.end()
    }
}

/// What sessions of `runtime` can use on the device of that number, best first: what the library that is open has *and*
/// what could be started here just now. `BackendMissing` for what this ONNX Runtime does not have or cannot load, with
/// its own reason; `DeviceMissing` where there is no driver or device.
pub fn available(runtime: &Runtime, device_id: u32) -> Vec<Availability> {
    let one = |provider| {
        let device_id = if provider == Provider::Cpu { 0 } else { device_id };
        Availability { provider, device_id, reason: register::probe(runtime, provider, device_id).err() }
    };
    Provider::ALL.into_iter().map(one).collect()
}

/// Threads that use the processor fully: one for each physical core this process may run on.
///
/// A second thread on a core shares its arithmetic units and slows matrix products down.
pub fn cpu_threads() -> usize {
    static COUNT: LazyLock<usize> = LazyLock::new(|| {
        let allowed = std::thread::available_parallelism().map_or(1, usize::from);
        physical_cores().map_or(allowed, |cores| cores.clamp(1, allowed))
    });
    *COUNT
}

/// Distinct cores among the processors this process may run on; `None` if the system does not say.
fn physical_cores() -> Option<usize> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    let allowed = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu));
    let siblings = allowed.map(|cpu| {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        std::fs::read_to_string(file).ok()
    });
    let cores: Option<std::collections::HashSet<String>> = siblings.collect();
    cores.map(|cores| cores.len())
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
        let logical = std::thread::available_parallelism().unwrap().get();
        assert!((1..=logical).contains(&cpu_threads()));
    }

    #[test]
    fn names_are_read_and_written() {
        for name in ["cpu", "cuda", "tensorrt", "auto"] {
            assert_eq!(name.parse::<ProviderChoice>().unwrap().name(), name);
        }
        let e = "gpu".parse::<ProviderChoice>().unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
        assert!(e.message().contains("auto, cpu, cuda or tensorrt"), "{e}");
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
