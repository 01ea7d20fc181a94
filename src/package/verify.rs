//! The verification of the integrity and the signature of a package.

use super::archive::{self, Entry};
use super::manifest::{Manifest, OURS, SEAL, SIGNATURE};
use crate::call::Ticket;
use crate::error::{Result, bail, error};
use crate::files;
use crate::files::digest::hex;
use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Returns the content of `optimize.json.sha256`, in the format that `sha256sum --check` reads.
pub fn seal(ours: &[u8]) -> String {
    format!("{}  {OURS}\n", hex(&Sha256::digest(ours)))
}

/// The content of the file with a signature.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    algorithm: String,
    public_key: String,
    signature: String,
}

const ALGORITHM: &str = "ed25519";

/// Returns the content of `optimize.json.sig`: the ed25519 signature (RFC 8032) of the manifest, which covers every
/// file by the hashes in the manifest.
pub fn sign(key: &[u8; 32], ours: &[u8]) -> String {
    let key = SigningKey::from_bytes(key);
    text(&Signed {
        algorithm: ALGORITHM.to_owned(),
        public_key: hex(key.verifying_key().as_bytes()),
        signature: hex(&key.sign(ours).to_bytes()),
    })
}

fn text(signed: &Signed) -> String {
    let mut text = serde_json::to_string_pretty(signed).unwrap_or_default();
    text.push('\n');
    text
}

/// Returns the public key that belongs to a secret key.
pub fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(secret).verifying_key().to_bytes()
}

/// Checks that `content`, the signature file, signs the manifest `ours`. Fails with
/// [`crate::error::Kind::InvalidModel`] if it does not or, with a `key`, if the signature was made by another key.
pub fn check_signature(content: &[u8], ours: &[u8], key: Option<&[u8; 32]>) -> Result<()> {
    let signed: Signed =
        serde_json::from_slice(content).map_err(|e| error!(InvalidModel, "{SIGNATURE} is damaged: {e}"))?;
    if signed.algorithm != ALGORITHM || text(&signed).as_bytes() != content {
        bail!(InvalidModel, "{SIGNATURE} does not have the format of liboptimize");
    }
    let damaged = |e: crate::error::Error| error!(InvalidModel, "{SIGNATURE} is damaged: {}", e.message());
    let public: [u8; 32] = from_hex(&signed.public_key).map_err(damaged)?;
    if key.is_some_and(|key| *key != public) {
        bail!(InvalidModel, "the package is signed by another key, {}", signed.public_key);
    }
    let signature = Signature::from_bytes(&from_hex(&signed.signature).map_err(damaged)?);
    let valid = VerifyingKey::from_bytes(&public).and_then(|public| public.verify_strict(ours, &signature));
    valid.map_err(|_| error!(InvalidModel, "the signature is not one of this package"))
}

/// Returns the `N` bytes that a text represents in hexadecimal digits of either case, with white space around them
/// ignored. Fails with [`crate::error::Kind::InvalidArgument`] for other texts.
pub fn from_hex<const N: usize>(text: &str) -> Result<[u8; N]> {
    let text = text.trim();
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!(InvalidArgument, "{} hexadecimal digits are expected, but there are {} characters", 2 * N, text.len());
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or("");
        *byte = u8::from_str_radix(digits, 16).map_err(|_| error!(InvalidArgument, "{digits:?} is not hexadecimal"))?;
    }
    Ok(bytes)
}

/// Returns the SHA-256 of the bytes of a mapped file in lower-case hexadecimal digits, and adds them to the progress.
/// Fails only with `Cancelled` or `Timeout`.
pub fn sha256(content: &[u8], ticket: &Ticket) -> Result<String> {
    let mut hash = Sha256::new();
    files::stream(content, &mut std::io::sink(), |part| {
        hash.update(part);
        ticket.add(part.len() as u64);
        ticket.check()
    })?;
    Ok(hex(&hash.finalize()))
}

/// Checks a package in one file. Fails with [`crate::error::Kind::InvalidModel`] if it has an entry that the manifest
/// lacks, or if bytes outside the content of the entries differ from those that writing the file gives.
pub fn archive(bytes: &Bytes, manifest: &Manifest, ticket: &Ticket) -> Result<()> {
    let found = archive::entries(bytes)?;
    let mut entries = Vec::new();
    for (name, content) in &found {
        let known = manifest.files.contains_key(name) || [OURS, SEAL, SIGNATURE].contains(&name.as_str());
        if !known {
            bail!(InvalidModel, "{OURS} has no entry for {name:?}");
        }
        let mut crc = crc32fast::Hasher::new();
        for part in content.chunks(1 << 20) {
            crc.update(part);
            ticket.check()?;
        }
        entries.push(Entry { name: name.clone(), size: content.len() as u64, crc: crc.finalize() });
    }
    let skeleton = archive::skeleton(&entries);
    let mut whole = skeleton.end + skeleton.tail.len() as u64 == bytes.len() as u64;
    for ((at, header), (_, content)) in skeleton.headers.iter().zip(&found) {
        let begin = *at as usize;
        let end = begin.saturating_add(header.len());
        whole &= bytes.get(begin..end) == Some(&header[..]);
        whole &= bytes.get(end..end + content.len()).map(<[u8]>::as_ptr) == Some(content.as_ptr());
    }
    whole &= bytes.get(skeleton.end as usize..) == Some(&skeleton.tail[..]);
    if !whole {
        bail!(InvalidModel, "the bytes between the files of the package have been changed");
    }
    Ok(())
}
