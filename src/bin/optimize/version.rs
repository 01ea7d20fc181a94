//! The option `optimize --version --verbose`, which prints the commit of this command, and the libraries and the
//! processor that it finds.

use optimize::kernels::Class;
use optimize::platform::processor;
use optimize::runtime::Runtime;
use optimize::tensorrt::{Choice, Library};

/// Returns the name and the version of the command on one line.
pub fn short() -> String {
    format!("optimize {}\n", env!("CARGO_PKG_VERSION"))
}

/// Returns lines with the commit, ONNX Runtime, TensorRT, and the class of the processor.
pub fn long() -> String {
    let commit = option_env!("OPTIMIZE_COMMIT").unwrap_or("not recorded in this build");
    // The list of searched places is omitted; commands that need the library print it.
    let missing = |reason: &str| reason.split("; tried").next().unwrap_or_default().to_owned();
    let runtime = match Runtime::open(None) {
        Ok(runtime) => format!("{}  {}", runtime.version(), runtime.path().display()),
        Err(e) => missing(e.message()),
    };
    let tensorrt = match Library::open(Choice::Auto, None) {
        Ok(library) => format!("{}  {}", library.name(), library.path().display()),
        Err(e) => missing(e.message()),
    };
    let name = processor::name().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!(
        "{}commit        {commit}\nONNX Runtime  {runtime}\nTensorRT      {tensorrt}\nprocessor     {name}\nkernels       {}\n",
        short(),
        Class::detect().name()
    )
}
