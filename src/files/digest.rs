//! The size and the SHA-256 of files, which identify them.

/// The identity of a model's files, as in reports.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FileIdentity {
    /// Path as given by the user; `null` for a model in memory.
    pub path: Option<String>,
    /// Total size of all files of the model in bytes, including external data.
    pub bytes: u64,
    /// SHA-256 of the `.onnx` file; with external data, of the concatenated hexadecimal digests of all files.
    pub sha256: String,
}

/// Returns a digest in lower-case hexadecimal digits.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
