//! The learning rate as a function of the progress of a run.

use super::Schedule;

/// Returns the learning rate at `progress`, a fraction of the whole run, as a fraction of the highest learning rate:
/// from 0 to 1. `warmup` is the fraction of the run in which the learning rate rises.
pub fn factor(schedule: Schedule, warmup: f64, progress: f64) -> f64 {
    let progress = progress.clamp(0.0, 1.0);
    if progress < warmup {
        return progress / warmup;
    }
    let done = if warmup < 1.0 { (progress - warmup) / (1.0 - warmup) } else { 1.0 };
    match schedule {
        Schedule::Linear => 1.0 - done,
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        Schedule::Constant => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_up_and_then_down() {
        let at = |schedule, progress| factor(schedule, 0.1, progress);
        for schedule in [Schedule::Linear, Schedule::Cosine, Schedule::Constant] {
            assert_eq!(at(schedule, 0.0), 0.0);
            assert_eq!(at(schedule, 0.05), 0.5);
            assert_eq!(at(schedule, 0.1), 1.0);
        }
        assert!((at(Schedule::Linear, 0.55) - 0.5).abs() < 1e-12);
        assert!((at(Schedule::Cosine, 0.55) - 0.5).abs() < 1e-12);
        assert_eq!((at(Schedule::Linear, 1.0), at(Schedule::Constant, 2.0)), (0.0, 1.0));
        assert_eq!(factor(Schedule::Constant, 0.0, 0.0), 1.0);
    }
}
