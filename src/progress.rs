//! How far a stream is: what was taken to be sent, and what has been sent.

use std::time::Instant;

/// Counts the bytes and events of a stream.
pub(crate) struct Progress {
    taken: u64,
    taken_events: u64,
    sent: u64,
    sent_events: u64,
    began_at: Instant,
    first_event_at: Option<Instant>,
    taken_at: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            taken: 0,
            taken_events: 0,
            sent: 0,
            sent_events: 0,
            began_at: now,
            first_event_at: None,
            taken_at: now,
        }
    }

    /// Note that bytes were taken.
    ///
    /// # Arguments
    ///
    /// * `events`: how many events the bytes are of.
    /// * `complete`: how many of these end with the bytes.
    pub(crate) fn taken(&mut self, bytes: usize, events: u64, complete: u64) {
        self.taken += bytes as u64;
        self.taken_events += complete;
        self.taken_at = Instant::now();
        if events > 0 {
            self.first_event_at.get_or_insert(self.taken_at);
        }
    }

    /// Note that everything that was taken has been sent.
    pub(crate) const fn sent(&mut self) {
        self.sent = self.taken;
        self.sent_events = self.taken_events;
    }

    pub(crate) const fn all_is_sent(&self) -> bool {
        self.taken == self.sent
    }

    pub(crate) const fn taken_events(&self) -> u64 {
        self.taken_events
    }

    pub(crate) const fn sent_events(&self) -> u64 {
        self.sent_events
    }

    pub(crate) const fn sent_bytes(&self) -> u64 {
        self.sent
    }

    /// Seconds until the first event was taken.
    pub(crate) fn seconds_to_first_event(&self) -> Option<f64> {
        Some((self.first_event_at? - self.began_at).as_secs_f64())
    }

    /// Seconds since anything was taken, or since the start.
    pub(crate) fn seconds_idle(&self) -> f64 {
        self.taken_at.elapsed().as_secs_f64()
    }
}
