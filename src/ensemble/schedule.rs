//! The assignment of members to threads that minimizes the time per token ([`Plan`]).
//!
//! Members that run concurrently, each on its own threads, do not wait for each other after every node. But with three
//! equal members on two threads, one thread is idle for a third of the time. So some members may run *wide*, one after
//! another with all threads, before the others share the threads, each in a *lane*.

/// The gain in speed from each additional thread for the same member, relative to the speed on one thread. It was
/// measured on decoders of about 100 M parameters.
const SHARE_OF_A_THREAD: f64 = 0.75;

/// The assignment of members, which are identified by their index, to threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Indices of the members that run first, one after another, with all threads.
    pub wide: Vec<usize>,
    /// Indices of the other members, which run after those: lanes run concurrently, the members of a lane one after
    /// another.
    pub lanes: Vec<Vec<usize>>,
    /// Number of threads of a member in a lane.
    pub lane_threads: usize,
}

impl Plan {
    /// Returns the plan with the smallest estimated time for members that take `costs` (in any unit) on one thread.
    pub fn new(costs: &[f64], threads: usize) -> Plan {
        let mut order: Vec<usize> = (0..costs.len()).collect();
        order.sort_by(|a, b| costs[*b].total_cmp(&costs[*a]).then(a.cmp(b)));
        let plan = |wide: usize| Plan::with_wide(&order, wide, costs, threads.max(1));
        let plans = (0..=costs.len()).map(plan);
        let fastest = plans.min_by(|a, b| a.time(costs, threads).total_cmp(&b.time(costs, threads)));
        fastest.unwrap_or(Plan { wide: Vec::new(), lanes: Vec::new(), lane_threads: 1 })
    }

    /// Returns the plan in which the first `wide` of `order` run with all threads, and each other member runs in the
    /// least loaded lane.
    fn with_wide(order: &[usize], wide: usize, costs: &[f64], threads: usize) -> Plan {
        let (wide, rest) = order.split_at(wide);
        let count = threads.min(rest.len());
        let mut lanes: Vec<(f64, Vec<usize>)> = vec![(0.0, Vec::new()); count];
        for &member in rest {
            if let Some(lane) = lanes.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0)) {
                lane.0 += costs[member];
                lane.1.push(member);
            }
        }
        let lane_threads = threads / count.max(1);
        Plan { wide: wide.to_vec(), lanes: lanes.into_iter().map(|lane| lane.1).collect(), lane_threads }
    }

    fn time(&self, costs: &[f64], threads: usize) -> f64 {
        let faster = |threads: usize| 1.0 + SHARE_OF_A_THREAD * (threads.max(1) - 1) as f64;
        let sum = |members: &[usize]| members.iter().map(|m| costs[*m]).sum::<f64>();
        let longest = self.lanes.iter().map(|lane| sum(lane)).fold(0.0, f64::max);
        sum(&self.wide) / faster(threads) + longest / faster(self.lane_threads)
    }

    /// Returns the number of threads of a member's session, if there are `threads` threads.
    pub fn threads_of(&self, member: usize, threads: usize) -> usize {
        if self.wide.contains(&member) { threads } else { self.lane_threads }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_share_the_threads_evenly() {
        let plan = |costs: &[f64], threads| {
            let plan = Plan::new(costs, threads);
            let mut all: Vec<usize> = plan.wide.iter().chain(plan.lanes.iter().flatten()).copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..costs.len()).collect::<Vec<_>>(), "{plan:?}");
            plan
        };
        // Two members on two threads run in parallel. Of three members, one runs first, with both threads.
        assert_eq!(plan(&[1.0, 1.0], 2), Plan { wide: vec![], lanes: vec![vec![0], vec![1]], lane_threads: 1 });
        assert_eq!(plan(&[1.0, 1.0, 1.0], 2), Plan { wide: vec![0], lanes: vec![vec![1], vec![2]], lane_threads: 1 });
        // A member that takes as long as the others together needs no second thread.
        assert_eq!(plan(&[1.0, 2.0, 1.0], 2), Plan { wide: vec![], lanes: vec![vec![1], vec![0, 2]], lane_threads: 1 });
        assert_eq!(plan(&[3.0, 1.0, 1.0], 2).wide, [0]);
        // With one thread, members run one after another. With more threads than members, each has several.
        assert_eq!(
            plan(&[1.0, 2.0], 1).lanes.len() + plan(&[1.0, 2.0], 1).wide.len(),
            2 - usize::from(plan(&[1.0, 2.0], 1).wide.is_empty())
        );
        assert_eq!(plan(&[1.0, 1.0], 8), Plan { wide: vec![], lanes: vec![vec![0], vec![1]], lane_threads: 4 });
        assert_eq!(Plan::new(&[], 2).time(&[], 2), 0.0);
    }
}
