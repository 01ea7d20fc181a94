//! How fast it is.

use super::*;

/// Seconds of processor time that this process has used, in hundredths.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Least wall time and processor time of `work`, in seconds.
fn least(rounds: usize, mut work: impl FnMut()) -> (f64, f64) {
    let mut least = (f64::MAX, f64::MAX);
    for _ in 0..rounds {
        let (wall, processor) = (Instant::now(), processor_seconds());
        work();
        least = (least.0.min(wall.elapsed().as_secs_f64()), least.1.min(processor_seconds() - processor));
    }
    least
}

/// Speed with SmolLM2, for the record: `cargo test --release --test generate -- --ignored --nocapture speed`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    for threads in [1, 2] {
        for dialect in BOTH {
            let mut generator = smollm2(dialect, threads);
            let prompt: Vec<i64> = (0..512).map(|i| 1000 + i * 37 % 20_000).collect();
            let mut shown = Vec::new();
            let mut show = |what: &str, tokens: f64, (wall, processor): (f64, f64)| {
                shown.push(format!("{what} {:.1} (by processor time {:.1})", tokens / wall, tokens / processor));
            };
            let prefill = least(3, || {
                generator.start(1).unwrap();
                generator.append(0, Prompt::Tokens(&prompt)).unwrap();
                generator.advance(&Call::default()).unwrap();
            });
            show("prefill 512", 512.0, prefill);
            for length in [8, 512] {
                generator.start(1).unwrap();
                generator.append(0, Prompt::Tokens(&prompt[..length])).unwrap();
                generator.run(&exactly(2), None, &Call::default()).unwrap();
                let decode = least(4, || {
                    generator.run(&exactly(64), None, &Call::default()).unwrap();
                    generator.rewind(0, 64).unwrap();
                });
                show(&format!("decode at {length}"), 64.0, decode);
            }
            println!("{dialect:?}, {threads} threads, tokens/s: {}", shown.join(", "));
        }
    }
}
