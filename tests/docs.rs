//! Tests of the documentation: fenced blocks marked `runnable` are run, the command lines of other blocks are parsed,
//! and their C fragments are compiled. All pages are reachable from the index, and no link is dead.

#[path = "docs/fragments.rs"]
mod fragments;
mod support;

use optimize::page::{Colour, Point, of_points};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{deps, scratch};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the pages of `docs/` and the README.
fn pages() -> Vec<PathBuf> {
    let listed = std::fs::read_dir(root().join("docs")).unwrap().flatten().map(|entry| entry.path());
    let mut pages: Vec<PathBuf> = listed.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

/// A fenced block: its language, whether it is marked as runnable, its first line in the page, and its text.
struct Block {
    language: String,
    runnable: bool,
    line: usize,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(info), false) => {
                let mut words = info.split_whitespace();
                let language = words.next().unwrap_or("").to_owned();
                let runnable = words.any(|word| word == "runnable");
                found.push(Block { language, runnable, line: index + 1, text: String::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                let block = found.last_mut().unwrap();
                block.text += line;
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!open, "a block is not closed");
    found
}

/// Returns a folder with the files that the pages use: `model/`, `model.onnx`, `text.txt`.
fn workplace(name: &str) -> support::Scratch {
    let folder = scratch(name);
    let model = deps("models/paraphrase-MiniLM-L3-v2").canonicalize().unwrap();
    std::fs::create_dir_all(folder.join("model")).unwrap();
    for entry in std::fs::read_dir(&model).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), folder.join("model").join(entry.file_name())).unwrap();
    }
    std::fs::copy(model.join("model.onnx"), folder.join("model.onnx")).unwrap();
    let lines: String = (0..40).map(|i| format!("Story {i} tells of a baker who sings {} songs.\n", i * 7)).collect();
    std::fs::write(folder.join("text.txt"), lines).unwrap();
    folder
}

/// Runs the blocks of a page in order, in one folder. Returns their number.
fn run(page: &Path, folder: &Path) -> usize {
    let text = std::fs::read_to_string(page).unwrap();
    let runnable: Vec<Block> = blocks(&text).into_iter().filter(|block| block.runnable).collect();
    let command = Path::new(env!("CARGO_BIN_EXE_optimize")).parent().unwrap();
    let runtime =
        std::env::var_os("ORT_DYLIB_PATH").map_or_else(|| deps("onnxruntime/libonnxruntime.so.1"), PathBuf::from);
    for block in &runnable {
        let script = match block.language.as_str() {
            "sh" => block.text.clone(),
            "c" => {
                std::fs::write(folder.join("app.c"), &block.text).unwrap();
                let include = root().join("include");
                format!("cc -Wall -Werror -o app app.c -I{} -L. -loptimize && ./app", include.display())
            }
            other => panic!("{}:{}: no way to run {other:?}", page.display(), block.line),
        };
        // The linker and the loader find the library in the folder, the loader under its soname.
        let library = std::env::current_exe().unwrap().with_file_name("liboptimize.so");
        for name in ["liboptimize.so", env!("OPTIMIZE_SONAME")] {
            let link = folder.join(name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&library, link).unwrap();
        }
        let path = format!("{}:{}", command.display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(folder)
            .envs([("PATH", path.as_str()), ("LD_LIBRARY_PATH", folder.to_str().unwrap())])
            .env("ORT_DYLIB_PATH", &runtime)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}:{} fails with {}:\n{script}\n{}",
            page.display(),
            block.line,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    runnable.len()
}

#[test]
fn runnable_blocks_run() {
    let mut count = 0;
    for page in pages() {
        let name = page.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&page).unwrap();
        if blocks(&text).iter().any(|block| block.runnable) {
            let done = run(&page, &workplace(&format!("docs-{name}")));
            println!("{name}: {done} of {done} blocks");
            count += done;
        }
    }
    println!("{count} of {count} blocks");
    assert!(count >= 15, "{count}");
}

/// Programs for ONNX Runtime's own interfaces, whose headers and packages are not here, and which are tested elsewhere
/// (tests/provider/, tests/capi/test_plugin.c).
const OTHER_INTERFACES: [(&str, usize); 1] = [("provider.md", 5)];

#[test]
fn blocks_that_are_not_run_are_parsed_or_compiled() {
    let (mut parsed, mut compiled, mut shown) = (0, 0, 0);
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let name = page.file_name().unwrap().to_str().unwrap();
        let folder = scratch(&format!("docs-fragments-{name}"));
        let mut others = 0;
        for block in blocks(&text).iter().filter(|block| !block.runnable) {
            match block.language.as_str() {
                "sh" => fragments::parse(&page, block, &folder),
                "c" if !block.text.contains("onnxruntime") => fragments::compile(&page, block, &folder),
                "text" | "console" => shown += 1,
                _ => others += 1,
            }
            parsed += usize::from(block.language == "sh");
            compiled += usize::from(block.language == "c" && !block.text.contains("onnxruntime"));
        }
        let expected = OTHER_INTERFACES.iter().find(|(page, _)| *page == name).map_or(0, |(_, count)| *count);
        assert_eq!(others, expected, "{}: blocks in other languages", page.display());
    }
    println!("{parsed} blocks of commands parsed, {compiled} C fragments compiled, {shown} of output");
    assert!(parsed >= 9 && compiled >= 12, "{parsed} {compiled}");
}

/// Returns the targets of the links of a page, without anchors and addresses.
fn links(page: &str) -> Vec<String> {
    let outside: String = page.split("```").step_by(2).collect();
    let targets = outside.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files.map(|target| target.split('#').next().unwrap().to_owned()).collect()
}

#[test]
fn every_page_is_reached_from_the_index_and_every_link_leads_somewhere() {
    let mut reached: BTreeSet<PathBuf> = BTreeSet::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let to = page.parent().unwrap().join(&link);
            assert!(to.exists(), "{}: {link} leads nowhere", page.display());
            if page.ends_with("docs/README.md") {
                reached.insert(to.canonicalize().unwrap());
            }
        }
    }
    let index = root().join("docs/README.md");
    for page in pages().iter().filter(|page| page.starts_with(root().join("docs")) && **page != index) {
        assert!(reached.contains(&page.canonicalize().unwrap()), "docs/README.md does not list {}", page.display());
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(links(&readme).iter().any(|link| link == "docs/README.md"), "README.md does not lead to the index");
}

#[test]
fn every_field_of_inspect_and_plan_is_documented() {
    let page = std::fs::read_to_string(root().join("docs/report.md")).unwrap();
    let (_, inspect) = page.split_once("## `inspect`").unwrap();
    let printed = |more: &[&str]| -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_optimize"));
        command.arg("inspect").arg("--model").arg(deps("models/paraphrase-MiniLM-L3-v2")).arg("--json").args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for key in printed(&[]).as_object().unwrap().keys() {
        assert!(inspect.contains(key.as_str()), "{key} of inspect is not documented");
    }
    let plans = printed(&["--plan"]);
    let plan = plans.as_array().unwrap().iter().find(|plan| plan["operation"] == "plan").unwrap();
    for key in plan.as_object().unwrap().keys().chain(plan["summary"].as_object().unwrap().keys()) {
        assert!(page.contains(&format!("`{key}`")) || page.contains(&format!("`{key}[]`")), "{key} is not documented");
    }
}

#[test]
fn the_sizes_of_the_readme_are_those_of_this_version() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, demo) = readme.split_once("<!-- demo: begin -->").unwrap();
    let folder = scratch("docs-demo");
    let output = Command::new(env!("CARGO_BIN_EXE_optimize"))
        .args(["quantize", "--output", "small.onnx", "--no-benchmark", "--model"])
        .arg(deps("models/paraphrase-MiniLM-L3-v2/model.onnx").canonicalize().unwrap())
        .current_dir(&*folder)
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let words = |text: &str, start: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in {text}"));
        line.split(", in ").next().unwrap().split_whitespace().map(str::to_owned).collect()
    };
    // Times and quality depend on the machine.
    for start in ["small.onnx:", "size "] {
        assert_eq!(words(demo, start), words(&printed, start), "run `make readme`");
    }
}

/// Returns the points of the table of docs/size-and-quality.md: size, and the mean increase of the perplexity in per
/// cent.
fn points(page: &str) -> Vec<Point> {
    let number = |cell: &str| cell.trim_matches(|c: char| c == '+' || c == '%' || c == ' ').parse::<f64>().ok();
    let point = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let [label, size, _, news, romance, _] = cells.as_slice() else { return None };
        let quality = (number(news)? + number(romance)?) / 2.0;
        let other = label.starts_with("llama.cpp") || label.starts_with("ONNX Runtime");
        let calibrated = label.contains("GPTQ") || label.contains("target");
        let group = if other { 2 } else { usize::from(calibrated) };
        let label = label.split(", output layer").next()?.to_owned();
        Some(Point { label, size: number(size)?, quality: quality.max(0.05), colour: Colour::Group(group) })
    };
    page.lines().filter_map(point).collect()
}

/// The picture is drawn from the table of its page; `OPTIMIZE_PICTURES=write` rewrites it.
#[test]
fn the_picture_of_size_and_quality_shows_its_table() {
    let page = std::fs::read_to_string(root().join("docs/size-and-quality.md")).unwrap();
    let points = points(&page);
    assert!(points.len() > 15, "{points:?}");
    let groups = ["optimize, without data, and AWQ", "optimize, GPTQ on a text", "others"];
    let picture = of_points(&points, "increase of the perplexity in per cent (lower is better)", &groups);
    for point in &points {
        assert!(picture.contains(&format!(">{}</text>", point.label)), "{} has no label", point.label);
    }
    let file = root().join("docs/size-and-quality.svg");
    if std::env::var("OPTIMIZE_PICTURES").is_ok_and(|value| value == "write") {
        std::fs::write(&file, &picture).unwrap();
    }
    assert!(std::fs::read_to_string(file).unwrap() == picture, "OPTIMIZE_PICTURES=write rewrites the picture");
}
