//! The trash's part of [`crate::fuzzing`].

use std::time::Duration;

use super::name::Stamp;
use super::record::Line;

/// A name of a generation, then lines of its record.
pub(crate) fn generation(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let name = lines.next().unwrap_or_default();
    if let Some(stamp) = Stamp::parse(name) {
        assert_eq!(stamp.to_string().as_bytes(), name, "a name is that of one generation only");
        assert!(!stamp.older_than(Duration::ZERO, 0), "at its own time or before, nothing is old");
        assert!(stamp.older_than(Duration::ZERO, stamp.at_ms + 1));
    }
    for line in lines {
        let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
        let written = serde_json::to_vec(&line).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<Line>(&written).ok().as_ref(), Some(&line));
        if let Line::Entry { name, .. } | Line::Directory { name, .. } = line {
            let _ = name.bytes();
        }
    }
}
