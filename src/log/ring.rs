//! The newest frames of a log, by offset.

use std::collections::VecDeque;
use std::mem;

/// A window on a log: offsets count from 1 without holes, and the oldest frames are dropped.
pub(crate) struct Ring<T> {
    frames: VecDeque<Kept<T>>,
    /// The offset of the newest frame, 0 before the first one.
    top: u64,
    /// How many frames are kept at most.
    most: usize,
    /// Counts the bytes of all frames. It does not begin at 0, because older frames can be put in
    /// front of the first ones.
    bytes: u64,
}

struct Kept<T> {
    frame: T,
    /// The bytes of all frames before this one.
    before: u64,
}

/// The frames that follow a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After<'a, T> {
    /// There is no newer frame.
    Nothing,
    /// The next frames are no longer kept. The oldest that is kept has this offset.
    Dropped(u64),
    /// The frames with the next offsets.
    Frames(Vec<&'a T>),
}

impl<T> Ring<T> {
    /// Return a ring whose next frame has the offset `top + 1`.
    pub(crate) const fn new(most: usize, top: u64) -> Self {
        Self {
            frames: VecDeque::new(),
            top,
            most,
            bytes: 1 << 62,
        }
    }

    pub(crate) const fn top(&self) -> u64 {
        self.top
    }

    /// The offset of the oldest frame that is kept, or of the next one if there is none.
    pub(crate) fn first(&self) -> u64 {
        self.top + 1 - self.frames.len() as u64
    }

    /// Append a frame. Return the one that is dropped for it.
    pub(crate) fn push(&mut self, frame: T, size: usize) -> Option<T> {
        let before = self.bytes;
        self.top += 1;
        self.bytes += size as u64;
        self.frames.push_back(Kept { frame, before });
        if self.frames.len() > self.most {
            self.frames.pop_front().map(|kept| kept.frame)
        } else {
            None
        }
    }

    /// Put an older frame in front of the others. Return it if there is no room.
    pub(crate) fn push_front(&mut self, frame: T, size: usize) -> Option<T> {
        if self.frames.len() >= self.most || self.first() <= 1 {
            return Some(frame);
        }
        let after = self.frames.front().map_or(self.bytes, |next| next.before);
        let before = after.wrapping_sub(size as u64);
        self.frames.push_front(Kept { frame, before });
        None
    }

    /// Drop all frames, and return them. The next one has the offset `top + 1`.
    pub(crate) fn restart(&mut self, top: u64) -> impl Iterator<Item = T> + use<T> {
        self.top = top;
        mem::take(&mut self.frames)
            .into_iter()
            .map(|kept| kept.frame)
    }

    /// The bytes of the frames after a cursor, as far as they are kept.
    pub(crate) fn bytes_after(&self, cursor: u64) -> u64 {
        let index = self.index_after(cursor).unwrap_or(0);
        self.frames
            .get(index)
            .map_or(0, |next| self.bytes - next.before)
    }

    /// The frames after a cursor: no more than `most_bytes` of them, but at least one.
    pub(crate) fn after(&self, cursor: u64, most_bytes: usize) -> After<'_, T> {
        if cursor >= self.top {
            return After::Nothing;
        }
        let Some(index) = self.index_after(cursor) else {
            return After::Dropped(self.first());
        };
        let limit = self.frames[index].before.saturating_add(most_bytes as u64);
        let end_of = |at: usize| {
            self.frames
                .get(at + 1)
                .map_or(self.bytes, |next| next.before)
        };
        let frames = self
            .frames
            .range(index..)
            .zip(index..)
            .take_while(|&(_, at)| at == index || end_of(at) <= limit)
            .map(|(kept, _)| &kept.frame)
            .collect();
        After::Frames(frames)
    }

    /// The index of the frame after a cursor. `None` if it has been dropped.
    fn index_after(&self, cursor: u64) -> Option<usize> {
        let index = (cursor.min(self.top) + 1).checked_sub(self.first())?;
        usize::try_from(index).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(most: usize, frames: &[&'static str]) -> Ring<&'static str> {
        let mut ring = Ring::new(most, 0);
        for &frame in frames {
            ring.push(frame, frame.len());
        }
        ring
    }

    #[test]
    fn frames_follow_a_cursor() {
        let ring = ring(9, &["a", "bb", "ccc"]);
        assert_eq!((ring.first(), ring.top()), (1, 3));
        assert_eq!(ring.after(0, 99), After::Frames(vec![&"a", &"bb", &"ccc"]));
        assert_eq!(ring.after(1, 99), After::Frames(vec![&"bb", &"ccc"]));
        assert_eq!(ring.after(3, 99), After::Nothing);
        assert_eq!(ring.after(u64::MAX, 99), After::Nothing);
    }

    #[test]
    fn there_is_a_most_of_bytes_but_one_frame_in_any_case() {
        let ring = ring(9, &["a", "bb", "ccc"]);
        assert_eq!(ring.after(0, 0), After::Frames(vec![&"a"]));
        assert_eq!(ring.after(0, 2), After::Frames(vec![&"a"]));
        assert_eq!(ring.after(0, 3), After::Frames(vec![&"a", &"bb"]));
        assert_eq!(ring.after(1, 4), After::Frames(vec![&"bb"]));
        assert_eq!(ring.after(1, 5), After::Frames(vec![&"bb", &"ccc"]));
        assert_eq!(ring.after(2, 1), After::Frames(vec![&"ccc"]));
    }

    #[test]
    fn old_frames_are_dropped() {
        let mut ring = ring(2, &["a", "bb"]);
        assert_eq!(ring.push("ccc", 3), Some("a"));
        assert_eq!((ring.first(), ring.top()), (2, 3));
        assert_eq!(ring.after(0, 99), After::Dropped(2));
        assert_eq!(ring.after(1, 99), After::Frames(vec![&"bb", &"ccc"]));
    }

    #[test]
    fn bytes_are_counted_from_a_cursor() {
        let ring = ring(2, &["a", "bb", "ccc"]);
        let bytes = |cursor| ring.bytes_after(cursor);
        assert_eq!(
            [bytes(0), bytes(1), bytes(2), bytes(3), bytes(9)],
            [5, 5, 3, 0, 0]
        );
        assert_eq!(Ring::<()>::new(2, 0).bytes_after(0), 0);
    }

    #[test]
    fn older_frames_are_put_in_front() {
        let mut ring = Ring::new(3, 4);
        assert_eq!((ring.first(), ring.top()), (5, 4));
        assert_eq!(ring.after(2, 99), After::Dropped(5));
        ring.push("e", 1);
        assert_eq!(ring.push_front("dd", 2), None);
        assert_eq!(ring.push_front("ccc", 3), None);
        assert_eq!(ring.push_front("bbbb", 4), Some("bbbb"));
        assert_eq!((ring.first(), ring.top()), (3, 5));
        assert_eq!(ring.after(2, 5), After::Frames(vec![&"ccc", &"dd"]));
        assert_eq!(ring.bytes_after(0), 6);
        assert_eq!(Ring::new(3, 0).push_front("a", 1), Some("a"));
    }

    #[test]
    fn a_ring_restarts_at_any_offset() {
        let mut ring = ring(9, &["a", "bb", "ccc"]);
        assert_eq!(ring.restart(7).collect::<Vec<_>>(), ["a", "bb", "ccc"]);
        assert_eq!((ring.first(), ring.top()), (8, 7));
        assert_eq!(ring.after(3, 99), After::Dropped(8));
        assert_eq!(ring.after(7, 99), After::Nothing);
    }
}
