//! The time slice of a producer: how long it may run before other tasks have to.
//!
//! The code is pure: callers pass the current time.

use std::time::{Duration, Instant};

/// The current time slice of a producer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacing {
    slice: Duration,
    began: Option<Instant>,
}

impl Pacing {
    pub(crate) fn new(slice: Duration) -> Self {
        Self { slice, began: None }
    }

    /// Begin a new slice, except before the first event.
    pub(crate) fn resume(&mut self, now: Instant) {
        if self.began.is_some() {
            self.began = Some(now);
        }
    }

    /// Return whether the slice is over. The first event of a stream always ends one, so that it
    /// does not wait for the work that follows it.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        let Some(began) = self.began else {
            self.began = Some(now);
            return true;
        };
        now.saturating_duration_since(began) >= self.slice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_event_gives_way_at_once() {
        let now = Instant::now();
        let mut pacing = Pacing::new(SLICE);
        pacing.resume(now);
        assert!(pacing.is_over(now));
        assert!(!pacing.is_over(now));
    }

    #[test]
    fn a_slice_is_over_when_its_time_has_passed() {
        let now = Instant::now();
        let mut pacing = Pacing::new(SLICE);
        pacing.is_over(now);
        assert!(!pacing.is_over(now + SLICE / 2));
        assert!(pacing.is_over(now + SLICE));
        pacing.resume(now + SLICE);
        assert!(!pacing.is_over(now + SLICE));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_is_no_panic() {
        let now = Instant::now();
        let mut pacing = Pacing::new(SLICE);
        pacing.is_over(now + SLICE);
        assert!(!pacing.is_over(now));
    }
}
