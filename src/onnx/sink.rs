//! Saving to a function of the program instead of to files.

use super::save::SavedFile;
use crate::call::{Call, Stage, Units};
use crate::error::{Kind, Result};
use crate::files::digest::hex;
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// A function of the program that receives the files of a model.
pub trait FileSink {
    /// Receives the next bytes of the file `name`. Files come one after another, and each complete file ends with a
    /// call without bytes. An error ends the saving, which returns it.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()>;
}

/// The maximum number of bytes that a sink receives at a time.
const CHUNK: usize = 4 << 20;

/// Passes what `work` writes to a sink, as the file `name`, and returns what was written. Fails with the error of the
/// sink, of `work` or of `call`.
///
/// `work` runs on another thread, so that the sink is called on the caller's thread. `call` receives the stage `save`
/// in bytes of this file, of which there are `total` (0 if unknown), and can cancel.
pub fn file(
    sink: &dyn FileSink,
    name: &str,
    (call, total): (&Call, u64),
    work: impl FnOnce(&mut (dyn Write + Send)) -> Result<()> + Send,
) -> Result<SavedFile> {
    call.check()?;
    let (sender, receiver) = sync_channel(2);
    let (received, worked) = std::thread::scope(|scope| {
        let worker = scope.spawn(move || -> Result<()> {
            let mut pipe = Pipe { sender, chunk: Vec::new() };
            work(&mut pipe)?;
            Ok(pipe.flush()?)
        });
        // The receiver ends with this call, so that the worker fails at its next write if the sink has failed.
        let received = receive(receiver, sink, name, (call, total));
        (received, worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    match (received, worked) {
        (Err(failed), Err(ended)) if ended.kind() == Kind::Io => Err(failed),
        (_, Err(failed)) => Err(failed),
        (received, Ok(())) => {
            let saved = received?;
            sink.write(name, &[])?;
            Ok(saved)
        }
    }
}

fn receive(
    receiver: Receiver<Vec<u8>>,
    sink: &dyn FileSink,
    name: &str,
    (call, total): (&Call, u64),
) -> Result<SavedFile> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut units = Units::new(call, Stage::SAVE, total as usize);
    for chunk in receiver {
        sink.write(name, &chunk)?;
        hash.update(&chunk);
        bytes += chunk.len() as u64;
        units.add(chunk.len())?;
    }
    Ok(SavedFile { path: PathBuf::from(name), bytes, sha256: hex(&hash.finalize()) })
}

/// The output of the worker: collects what is written, and sends it to the receiver in chunks of [`CHUNK`] bytes.
struct Pipe {
    sender: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.sender.send(std::mem::take(&mut self.chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A sink that keeps what it receives, and fails once that is more bytes than the second field.
    struct Kept(RefCell<Vec<(String, Vec<u8>)>>, usize);

    impl FileSink for Kept {
        fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
            let mut kept = self.0.borrow_mut();
            kept.push((name.to_owned(), bytes.to_vec()));
            if kept.iter().map(|part| part.1.len()).sum::<usize>() > self.1 {
                crate::error::bail!(Unsupported, "the sink is full");
            }
            Ok(())
        }
    }

    #[test]
    fn a_sink_receives_all_bytes_in_pieces_and_its_failure_ends_the_work() {
        let content: Vec<u8> = (0..2 * CHUNK + 5).map(|i| (i % 251) as u8).collect();
        let sink = Kept(RefCell::default(), usize::MAX);
        let call = Call::default();
        let saved = file(&sink, "a", (&call, 0), |out| Ok(out.write_all(&content)?)).unwrap();
        assert_eq!((saved.bytes, saved.sha256), (content.len() as u64, hex(&Sha256::digest(&content))));
        let parts = sink.0.into_inner();
        assert_eq!(parts.iter().map(|part| part.1.len()).collect::<Vec<_>>(), [CHUNK, CHUNK, 5, 0]);
        assert!(parts.iter().flat_map(|part| &part.1).eq(&content) && parts.iter().all(|part| part.0 == "a"));

        let full = Kept(RefCell::default(), CHUNK);
        let endless = |out: &mut (dyn Write + Send)| -> Result<()> {
            loop {
                out.write_all(&content)?;
            }
        };
        assert_eq!(file(&full, "a", (&call, 0), endless).unwrap_err().kind(), Kind::Unsupported);
        let broken = |_: &mut (dyn Write + Send)| -> Result<()> { crate::error::bail!(InvalidModel, "broken") };
        let sink = Kept(RefCell::default(), usize::MAX);
        assert_eq!(file(&sink, "a", (&call, 0), broken).unwrap_err().kind(), Kind::InvalidModel);
        assert!(sink.0.into_inner().is_empty(), "a file that is not complete is not ended");
    }
}
