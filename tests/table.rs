//! Tests of the table of techniques: rows that a killed run has finished are not measured again, and the page needs no
//! other file.

mod support;

use optimize::table::{State, Table};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use support::words::{Join, numbered};
use support::{deps, scratch};

fn table(output: &Path, more: &[&str]) -> Command {
    table_of(&deps("models/paraphrase-MiniLM-L3-v2"), output, more)
}

fn table_of(model: &Path, output: &Path, more: &[&str]) -> Command {
    let runtime = std::env::var_os("ORT_DYLIB_PATH");
    let runtime = runtime.map_or_else(|| deps("onnxruntime/libonnxruntime.so.1"), PathBuf::from);
    let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
    command.env("ORT_DYLIB_PATH", runtime).arg("table").arg("--output").arg(output).arg("--models");
    command.arg(model);
    command.args(["--threads", "1", "--runs", "3", "--max-seconds", "0.2"]).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Returns the files of the finished rows, each with the time of its last change.
fn finished(output: &Path) -> Vec<(PathBuf, SystemTime)> {
    let rows = std::fs::read_dir(output.join("rows")).into_iter().flatten().flatten();
    let done = rows.filter(|row| row.path().extension().is_some_and(|end| end == "json"));
    done.map(|row| (row.path(), row.metadata().unwrap().modified().unwrap())).collect()
}

#[test]
fn a_killed_run_continues_where_it_was() {
    let folder = scratch("table-killed");
    let rows = ["--rows", "int8", "int4", "prune-50", "tensorrt"];
    let mut child = table(&folder, &rows).spawn().unwrap();
    let start = Instant::now();
    while finished(&folder).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the command ended before a row was finished");
        assert!(start.elapsed() < Duration::from_secs(120), "no row is finished");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    let before = finished(&folder);
    let page = folder.join("page.html");
    let output = table(&folder, &rows).args(["--json", "--html"]).arg(&page).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Table = serde_json::from_slice(&output.stdout).unwrap();
    let after = finished(&folder);
    assert!(before.iter().all(|row| after.contains(row)), "a finished row was measured again: {before:?}, {after:?}");
    let names: Vec<(&str, State)> = made.models[0].rows.iter().map(|row| (row.name.as_str(), row.state)).collect();
    let measured = State::Measured;
    assert_eq!(names[..3], [("int8", measured), ("int4", measured), ("prune-50", measured)]);
    assert!(names[3].0 == "tensorrt" && (names[3].1 == State::Skipped || optimize::tensorrt::device().is_ok()));
    for row in &made.models[0].rows[..3] {
        assert!(row.speed.iter().all(|speed| speed.speedup.value > 0.0) && row.speed.len() == 3, "{row:?}");
        assert!(row.smaller > 0.2 && row.load_ms.is_some() && !row.quality.is_empty(), "{row:?}");
        assert!(row.verdicts.iter().any(|verdict| verdict.of == "size"), "{row:?}");
    }
    let text = std::fs::read_to_string(&page).unwrap();
    assert_eq!(text, std::fs::read_to_string(folder.join("table.html")).unwrap());
    assert!(text.len() < 400_000 && text.contains("<svg") && !text.contains("<script"));
    // All rows are there: nothing is measured.
    assert!(table(&folder, &rows).output().unwrap().status.success());
    assert_eq!(finished(&folder).len(), after.len());
    assert!(finished(&folder).iter().all(|row| after.contains(row)));
}

#[test]
fn a_short_context_shortens_the_prompt() {
    let folder = scratch("table-context");
    let decoder = folder.join("decoder");
    std::fs::create_dir_all(&decoder).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/llama");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture.join(name), decoder.join(name)).unwrap();
    }
    std::fs::write(decoder.join("tokenizer.json"), numbered(150, Join::Fuse)).unwrap();
    let mut command = table_of(&decoder, &folder.join("table"), &["--rows", "compile", "--json"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Table = serde_json::from_slice(&output.stdout).unwrap();
    let row = &made.models[0].rows[0];
    assert_eq!(row.state, State::Measured, "{row:?}");
    // The context has 64 positions, and 16 tokens follow the prompt.
    let sizes: Vec<&str> = row.speed.iter().map(|speed| speed.size.as_str()).collect();
    assert_eq!(sizes, ["prefill 48", "decode"]);
}

#[test]
fn rows_have_names() {
    let folder = scratch("table-names");
    let output = Command::new(env!("CARGO_BIN_EXE_optimize")).args(["table", "--list-rows"]).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), optimize::table::names());
    let refused = table(&folder, &["--rows", "nothing"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("int8"));
}
