//! The size and the SHA-256 of files, which identify them.

/// The identity of a model's files, as in reports.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FileIdentity {
    /// Path as given by the user; `null` for a model in memory.
    pub path: Option<String>,
    /// Total size of all files of the model in bytes, including external data; for a model in a package, of all files
    /// of the package; for a model without files, the size that it would have as an ONNX file.
    pub bytes: u64,
    /// SHA-256 of the only file of the model, or of the concatenated hexadecimal digests of all its files if there are
    /// several, the `.onnx` file first; for a model without files, of the ONNX file that it would have.
    pub sha256: String,
}

/// Returns the bytes of a digest as text, in two lower-case hexadecimal digits each.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
