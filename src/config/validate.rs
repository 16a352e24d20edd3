use super::{Config, Problems};

/// Reports what no single type can refuse, as far as it can be said without any other room.
pub(super) fn validate(config: &Config, problems: &mut Problems) {
    if config.version != 1 {
        problems.error("/version", "the only version of this format is 1");
    }
}
