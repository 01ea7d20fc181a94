//! What identifies files: their size and their SHA-256.

/// Identity of a model's files, as reports give it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FileIdentity {
    /// The path as the user gave it; `null` for a model made in memory.
    pub path: Option<String>,
    /// Size of all files of the model together, external data included.
    pub bytes: u64,
    /// SHA-256 of the `.onnx` file; with external data, of the hex digests of all files one after another.
    pub sha256: String,
}

/// Returns a digest in lower-case hex.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
