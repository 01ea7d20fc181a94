//! The opening of packages, and the selection of their variants.

use super::archive;
use super::engines;
use super::manifest::{ASSETS, LOCATION, Manifest, OURS, SEAL, SIGNATURE, THEIRS, Variant, WEIGHTS};
use super::variants;
use super::verify;
use crate::call::{Call, Stage};
use crate::error::{Context, Result, bail, error};
use crate::files::digest::hex;
use crate::model::{Card, Format, Model, Prepared, SideContent, SideFile};
use crate::onnx::load;
use crate::runtime::{ProviderChoice, Runtime, Session, SessionOptions, kernels_usable};
use crate::tensorrt::{self, Engine};
use crate::text::{Generator, Tokenizer};
use crate::{files, limits};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Options for opening a package.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Name of a variant or a precision; `None` selects one automatically.
    pub variant: Option<String>,
    /// Public key that must have signed the package, 32 bytes; `None` accepts any package.
    pub key: Option<[u8; 32]>,
}

/// The selected variant of a package, and the reason for the selection.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Index of the variant in the manifest.
    pub index: usize,
    /// Reason why the variant was selected.
    pub reason: String,
}

/// An open package. It is immutable, cheap to clone, and can be shared between threads.
#[derive(Clone)]
pub struct Package(Arc<Inner>);

struct Inner {
    path: PathBuf,
    entries: Entries,
    manifest: Manifest,
    options: OpenOptions,
}

/// The place of the files of a package.
enum Entries {
    Folder(PathBuf),
    File(BTreeMap<String, Bytes>, Bytes),
}

impl Entries {
    fn get(&self, name: &str) -> Result<Bytes> {
        archive::check_name(name)?;
        match self {
            Entries::Folder(folder) => {
                let file = files::open_beneath(folder, name).at(|| name)?;
                files::map(&file, limits::DATA_FILE_BYTES).at(|| name)
            }
            Entries::File(entries, _) => {
                entries.get(name).cloned().ok_or_else(|| error!(InvalidModel, "the package has no file {name:?}"))
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Entries::Folder(folder) => folder.join(name).is_file(),
            Entries::File(entries, _) => entries.contains_key(name),
        }
    }
}

/// Returns whether the file or folder at `path` looks like a package: a folder with `optimize.json` and its hash, or a
/// file for which [`is_package_file`] holds.
pub fn is_package(path: &Path) -> bool {
    if path.is_dir() {
        return path.join(OURS).is_file() && path.join(SEAL).is_file();
    }
    let mapped = files::open(path).and_then(|file| files::map(&file, limits::DATA_FILE_BYTES));
    mapped.is_ok_and(|bytes| is_package_file(&bytes))
}

/// Returns whether the content of a file looks like a package: a zip file with the name `optimize.json` in its last
/// 64 KiB.
pub fn is_package_file(bytes: &[u8]) -> bool {
    // The central directory of an archive is at its end. A damaged archive counts as a package, so that opening it
    // reports the damage.
    let tail = &bytes[bytes.len().saturating_sub(1 << 16)..];
    archive::is_archive(bytes) && tail.windows(OURS.len()).any(|name| name == OURS.as_bytes())
}

impl Package {
    /// Opens a package and returns it, after checking the SHA-256 of the manifest and, with a key, its signature. All
    /// other files are memory-mapped when they are used. Then their size is checked, and the hash of graphs, engines
    /// and the tokenizer; [`Package::verify`] checks the hashes of all files.
    ///
    /// Fails with [`crate::error::Kind::Unsupported`] for a package of a newer format version or without a variant for
    /// this machine. Fails with `NotFound` if there is no such path, or if the package lacks a manifest or the
    /// requested variant. Fails with `LimitExceeded` if the file, its number of entries or the manifest is too large,
    /// and with `InvalidModel` if the package is damaged or not signed with the key.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Package> {
        let opened = || match std::fs::metadata(path)?.is_dir() {
            true => Package::of_entries(path, Entries::Folder(path.to_owned()), options),
            false => Package::of_file(files::map(&files::open(path)?, limits::DATA_FILE_BYTES)?, path, options),
        };
        opened().at(|| path.display())
    }

    /// Opens a package in one file with the content `bytes`, and returns it; `name` is its name in messages. Fails like
    /// [`Package::open`], which describes the checks.
    pub fn from_bytes(bytes: Bytes, name: &str, options: &OpenOptions) -> Result<Package> {
        Package::of_file(bytes, Path::new(name), options).at(|| name)
    }

    fn of_file(bytes: Bytes, path: &Path, options: &OpenOptions) -> Result<Package> {
        let entries = archive::entries(&bytes)?.into_iter().collect();
        Package::of_entries(path, Entries::File(entries, bytes), options)
    }

    fn of_entries(path: &Path, entries: Entries, options: &OpenOptions) -> Result<Package> {
        let ours = entries.get(OURS)?;
        if ours.len() as u64 > limits::CONFIG_BYTES {
            bail!(LimitExceeded, "{OURS} has {} bytes, more than {}", ours.len(), limits::CONFIG_BYTES);
        }
        if entries.get(SEAL)?[..] != *verify::seal(&ours).as_bytes() {
            bail!(InvalidModel, "{OURS} does not match {SEAL}: the package is damaged");
        }
        if let Some(key) = &options.key {
            if !entries.has(SIGNATURE) {
                bail!(InvalidModel, "the package is not signed");
            }
            verify::check_signature(&entries.get(SIGNATURE)?, &ours, Some(key))?;
        }
        let manifest = Manifest::read(&ours).at(|| OURS)?;
        for name in manifest.files.keys().chain(manifest.variants.iter().map(|v| &v.file)) {
            archive::check_name(name)?;
        }
        let inner = Inner { path: path.to_owned(), entries, manifest, options: options.clone() };
        let package = Package(Arc::new(inner));
        package.choose(None)?;
        Ok(package)
    }

    /// Returns the manifest of the package.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Returns the path or name with which the package was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the variant that sessions on the CPU use with this version of ONNX Runtime. If `runtime` is `None`,
    /// returns a portable variant. Fails with [`crate::error::Kind::Unsupported`] if no variant can run.
    pub fn choose(&self, runtime: Option<&'static Runtime>) -> Result<Choice> {
        let kernels = match runtime {
            Some(runtime) => self.compiled_usable(&kernels_usable(runtime, &SessionOptions::default())),
            None => Err("ONNX Runtime is not open".to_owned()),
        };
        self.choose_for(runtime.map(Runtime::version), &kernels)
    }

    fn choose_for(&self, runtime: Option<&str>, kernels: &std::result::Result<(), String>) -> Result<Choice> {
        let wanted = self.0.options.variant.as_deref();
        let (index, reason) = variants::choose(&self.0.manifest, wanted, runtime, kernels)?;
        Ok(Choice { index, reason })
    }

    /// Returns `Ok` if sessions can use compiled variants, and otherwise the reason why not. `kernels` is `Ok` if this
    /// library's kernels can be used, and otherwise the reason why not.
    fn compiled_usable(&self, kernels: &std::result::Result<(), String>) -> std::result::Result<(), String> {
        match self.0.entries {
            Entries::File(..) => Err("its weights cannot be mapped from a package in one file".to_owned()),
            Entries::Folder(_) => kernels.clone(),
        }
    }

    /// Returns the model of the package: the portable graph in the precision of the selected variant, for techniques
    /// and for inspection. Its sessions check the contract; on the CPU they run the variant that is chosen for the
    /// processor. Fails with [`crate::error::Kind::InvalidModel`] if the graph is damaged.
    pub fn model(&self) -> Result<Model> {
        let chosen = self.choose(None)?.index;
        let variants = &self.0.manifest.variants;
        let precision = &variants[chosen].precision;
        let portable = variants.iter().position(|v| !v.ahead && v.precision == *precision).unwrap_or(chosen);
        let package = self.clone();
        let ready = move |runtime: &str, kernels: &std::result::Result<(), String>| {
            package.prepared(runtime, kernels, Some(portable))
        };
        Ok(self.load(portable)?.with_ready(Arc::new(ready)).shipped_in(self.bytes()))
    }

    /// Returns the size of all files that the manifest names, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.manifest.files.values().map(|file| file.bytes).fold(0, u64::saturating_add)
    }

    /// Returns the variant to create sessions from on the CPU; `None` if it is the variant `loaded`. `kernels` is `Ok`
    /// if this library's kernels can be used, and otherwise the reason why not.
    fn prepared(
        &self,
        runtime: &str,
        kernels: &std::result::Result<(), String>,
        loaded: Option<usize>,
    ) -> Result<Option<Prepared>> {
        let index = self.choose_for(Some(runtime), &self.compiled_usable(kernels))?.index;
        if loaded == Some(index) {
            return Ok(None);
        }
        let variant = &self.0.manifest.variants[index];
        let compiled = match (&variant.compiled, &self.0.entries) {
            (Some(compiled), Entries::Folder(folder)) => {
                Some(self.compiled_path(folder, variant, &compiled.weights).at(|| &variant.name)?)
            }
            _ => None,
        };
        let model = self.load(index)?;
        Ok(Some(Prepared { name: variant.name.clone(), model, ahead: variant.ahead, compiled }))
    }

    /// Returns the path of a compiled graph, after checking that the file `weights` with its packed weights has the
    /// size in the manifest.
    fn compiled_path(&self, folder: &Path, variant: &Variant, weights: &str) -> Result<PathBuf> {
        // This library's execution provider opens the file by its path, and checks its content by its own checksum.
        archive::check_name(weights)?;
        files::open_beneath(folder, weights).at(|| weights)?;
        self.sized(weights)?;
        Ok(std::path::absolute(folder.join(&variant.file))?)
    }

    /// Returns the graph of the variant with this index in the manifest as a model. Fails with
    /// [`crate::error::Kind::NotFound`] if there is no such variant, and with `InvalidModel` if the graph is damaged or
    /// the variant is an engine.
    pub fn load(&self, index: usize) -> Result<Model> {
        self.load_inner(index).at(|| self.0.path.display())
    }

    fn load_inner(&self, index: usize) -> Result<Model> {
        let Some(variant) = self.0.manifest.variants.get(index) else { bail!(NotFound, "no variant {index}") };
        let graph = self.checked(&variant.file)?;
        let loaded = if variant.is_packed() {
            load::from_bytes(graph.clone(), None)
        } else {
            let given = BTreeMap::from([(LOCATION.to_owned(), self.sized(WEIGHTS)?)]);
            load::from_parts(graph.clone(), given)
        };
        let loaded = loaded.at(|| &variant.file)?;
        let mut files = vec![(PathBuf::from(&variant.file), graph)];
        files.extend(loaded.files);
        Ok(Model::assemble(loaded.proto, self.card()?, &self.0.path, files))
    }

    /// Returns the content of a file, after checking its hash against the manifest. Fails with `InvalidModel` if it
    /// differs.
    pub(super) fn checked(&self, name: &str) -> Result<Bytes> {
        let content = self.sized(name)?;
        if hex(&Sha256::digest(&content)) != self.0.manifest.files[name].sha256 {
            bail!(InvalidModel, "{name} does not match {OURS}: the package is damaged");
        }
        Ok(content)
    }

    /// Returns the content of a file, after checking its size against the manifest but not its hash: for weights, which
    /// are too large to read on opening.
    fn sized(&self, name: &str) -> Result<Bytes> {
        let Some(file) = self.0.manifest.files.get(name) else {
            bail!(InvalidModel, "{OURS} has no entry for {name:?}")
        };
        let content = self.0.entries.get(name)?;
        if content.len() as u64 != file.bytes {
            bail!(InvalidModel, "{name} has {} bytes, but {OURS} says {}", content.len(), file.bytes);
        }
        Ok(content)
    }

    fn card(&self) -> Result<Card> {
        let manifest = &self.0.manifest;
        let assets =
            manifest.files.keys().filter_map(|name| Some((name, name.strip_prefix(ASSETS)?.strip_prefix('/')?)));
        let side = |(name, short): (&String, &str)| {
            Ok(SideFile { name: short.to_owned(), content: SideContent::Bytes(self.sized(name)?) })
        };
        Ok(Card {
            format: Format::Package,
            side_files: assets.map(side).collect::<Result<_>>()?,
            contract: Some(Arc::new(manifest.shapes.clone())),
            lineage: manifest.lineage.clone(),
            warnings: Vec::new(),
            ..manifest.card.clone()
        })
    }

    /// Returns a session of the selected variant, which is the only graph that is read; on providers other than the
    /// CPU, a session of the portable graph. Runs check the contract. Fails like [`Package::choose`] and
    /// [`Session::new`].
    pub fn session(&self, runtime: &'static Runtime, options: &SessionOptions, call: &Call) -> Result<Session> {
        if options.execution.provider != ProviderChoice::Cpu {
            // The prepared variants are optimized for a CPU; other devices run the portable graph.
            return Session::new(runtime, &self.model()?, options, call);
        }
        let choose = |kernels: &_| self.prepared(runtime.version(), kernels, None);
        Session::of_prepared(runtime, &choose, options, call).at(|| self.0.path.display())
    }

    /// Opens the TensorRT engine of the package on the NVIDIA GPU with the index `device_id`, and returns it. Runs
    /// check the contract. Fails with [`crate::error::Kind::NotFound`] if the package has no engine, with `Unsupported`
    /// for a package in one file, with `InvalidModel` if the engine is damaged, and otherwise like [`Engine::open`].
    pub fn engine(&self, options: &tensorrt::OpenOptions, device_id: u32) -> Result<Engine> {
        let Some(variant) = self.0.manifest.variants.iter().find(|variant| variant.provider == engines::PROVIDER)
        else {
            bail!(NotFound, "{}: the package has no engine", self.0.path.display());
        };
        if matches!(self.0.entries, Entries::File(..)) {
            bail!(
                Unsupported,
                "{}: an engine can only be run from a package folder, not from a single file",
                self.0.path.display()
            );
        }
        let (file, beside) = (self.checked(&variant.file)?, self.checked(&format!("{}.json", variant.file))?);
        let path = self.0.path.join(&variant.file);
        if files::read(&tensorrt::manifest::path_of(&path), limits::CONFIG_BYTES)? != beside[..] || file.is_empty() {
            bail!(InvalidModel, "{}: the file changed while it was read", path.display());
        }
        let contract = Arc::new(self.0.manifest.shapes.clone());
        Ok(Engine::open(&path, options, device_id)?.with_contract(contract))
    }

    /// Returns the tokenizer of the package. Fails with [`crate::error::Kind::NotFound`] if there is none, with
    /// `InvalidModel` if its files are damaged, and otherwise like [`Tokenizer::with_files`].
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let name = format!("{ASSETS}/tokenizer.json");
        if !self.0.manifest.files.contains_key(&name) {
            bail!(NotFound, "{}: the package has no tokenizer", self.0.path.display());
        }
        let beside = |name: &str| -> Result<Option<Bytes>> {
            let name = format!("{ASSETS}/{name}");
            self.0.manifest.files.contains_key(&name).then(|| self.checked(&name)).transpose()
        };
        Tokenizer::for_task(self.0.manifest.card.task, &self.checked(&name)?, &beside).at(|| name)
    }

    /// Returns a text generator on the package's model. Fails like [`Generator::new`].
    pub fn generator(&self, runtime: &'static Runtime, options: &SessionOptions, call: &Call) -> Result<Generator> {
        Generator::new(runtime, &self.model()?, options, call)
    }

    /// Returns the manifest as JSON, with `chosen` (the selected variant and the reason, see [`Package::choose`]) and
    /// `signed` (whether the package has a signature, which is not checked). Fails like [`Package::choose`].
    pub fn inspect(&self, runtime: Option<&'static Runtime>) -> Result<String> {
        let choice = self.choose(runtime)?;
        let mut value = serde_json::to_value(&self.0.manifest).unwrap_or_default();
        if let Value::Object(object) = &mut value {
            let name = &self.0.manifest.variants[choice.index].name;
            object.insert("chosen".to_owned(), json!({ "variant": name, "reason": choice.reason }));
            object.insert("signed".to_owned(), self.0.entries.has(SIGNATURE).into());
        }
        let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
        text.push('\n');
        Ok(text)
    }

    /// Checks every byte: the hashes of all files including the manifest, the signature if there is one (against `key`,
    /// if given), and in a package in one file also the bytes around the entries. Progress stage: `verify`, in bytes.
    ///
    /// Fails with [`crate::error::Kind::InvalidModel`] if anything differs, or if `key` is given and the package is not
    /// signed, and with `NotFound` or `Io` if a file of a package folder is missing or cannot be read. Files in a
    /// package folder that the manifest does not list are ignored.
    pub fn verify(&self, key: Option<&[u8; 32]>, call: &Call) -> Result<()> {
        call.drive(Stage::VERIFY, self.bytes(), |ticket| self.verify_all(key, ticket)).at(|| self.0.path.display())
    }

    fn verify_all(&self, key: Option<&[u8; 32]>, ticket: &crate::call::Ticket) -> Result<()> {
        let ours = self.0.entries.get(OURS)?;
        if self.0.entries.get(SEAL)?[..] != *verify::seal(&ours).as_bytes() {
            bail!(InvalidModel, "{OURS} does not match {SEAL}");
        }
        if self.0.entries.has(SIGNATURE) {
            verify::check_signature(&self.0.entries.get(SIGNATURE)?, &ours, key)?;
        } else if key.is_some() {
            bail!(InvalidModel, "the package is not signed");
        }
        if !self.0.manifest.files.contains_key(THEIRS) {
            bail!(InvalidModel, "{OURS} has no entry for {THEIRS}");
        }
        for (name, file) in &self.0.manifest.files {
            let content = self.sized(name)?;
            if verify::sha256(&content, ticket)? != file.sha256 {
                bail!(InvalidModel, "{name} does not match {OURS}");
            }
        }
        match &self.0.entries {
            Entries::Folder(_) => Ok(()),
            Entries::File(_, bytes) => verify::archive(bytes, &self.0.manifest, ticket),
        }
    }
}
