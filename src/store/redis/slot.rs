//! The slots of a cluster, as its specification has them: CRC16 of the key's hash tag, modulo 16384.

use std::fmt::{self, Display, Write};

/// How many there are.
pub(super) const SLOTS: u16 = 16384;

/// The part of a cluster's keys that one key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(pub u16);

impl Slot {
    /// The slot of a key: of what stands between its first braces, where that is something.
    pub fn of(key: &str) -> Self {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        Self::tagged(tag.filter(|tag| !tag.is_empty()).unwrap_or(key))
    }

    /// The slot of every key with that tag.
    pub fn tagged(tag: impl Display) -> Self {
        let mut crc = Crc(0);
        // Adding to a number does not fail.
        let _ = write!(crc, "{tag}");
        Self(crc.0 % SLOTS)
    }

    /// A tag whose keys are in this slot.
    pub fn tag(self) -> String {
        let numbers = 0..u32::MAX;
        numbers.map(|number| number.to_string()).find(|tag| Self::tagged(tag) == self).unwrap_or_default()
    }
}

/// Slots one after the other, both ends included.
pub(super) type Range = (u16, u16);

/// CRC-16/XMODEM.
struct Crc(u16);

impl Write for Crc {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 ^= u16::from(byte) << 8;
            for _ in 0..8 {
                self.0 = if self.0 & 0x8000 == 0 { self.0 << 1 } else { self.0 << 1 ^ 0x1021 };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_the_servers() {
        // As `CLUSTER KEYSLOT` answers.
        for (key, slot) in
            [("123456789", 12739), ("foo", 12182), ("a{foo}b", 12182), ("a{}foo", 16292), ("{a{foo}", 113)]
        {
            assert_eq!(Slot::of(key), Slot(slot), "{key}");
        }
        for slot in [Slot(0), Slot(777), Slot(SLOTS - 1)] {
            assert_eq!(Slot::of(&format!("x:{{{}}}", slot.tag())), slot);
        }
    }
}
