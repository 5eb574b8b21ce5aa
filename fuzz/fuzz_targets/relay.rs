//! Bytes that pass the check for complete events are complete events between any others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use subject::wire::{FrameError, check_frames};
use subject::{lines, read};

const BEFORE: &str = "data: before\n\n";
const AFTER: &str = "data: after\n\n";

fuzz_target!(|frames: &[u8]| {
    let checked = check_frames(frames);
    let Ok(text) = str::from_utf8(frames) else {
        return assert_eq!(checked, Err(FrameError::NotUtf8));
    };
    if let [.., blank, unfinished] = &lines(text)[..]
        && blank.is_empty()
        && unfinished.is_empty()
        && !text.starts_with('\u{feff}')
    {
        assert_eq!(checked, Ok(()));
        let alone = read(&format!("{BEFORE}{text}"));
        let mut followed = read(&format!("{BEFORE}{text}{AFTER}"));
        let (kind, data, _) = followed.events.pop().unwrap();
        assert_eq!((&*kind, &*data), ("message", "after"));
        assert_eq!(followed, alone);
    } else {
        assert!(checked.is_err());
    }
});
