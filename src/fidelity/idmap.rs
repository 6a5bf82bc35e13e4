//! `--usermap`, `--groupmap` and `--chown`, as rsync has them under `--numeric-ids`.
//!
//! Ids in trees stay numbers: no name of a tree's owner is ever looked up, so every id counts as
//! having an empty name, which `*` and an empty FROM match (rsync(1), `--usermap`). Names in the
//! options themselves are resolved by this machine's databases, once.

use std::ffi::CString;
use std::io;

use crate::sys;

/// Changes of owner and group that the user asked for. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    users: Vec<Rule>,
    groups: Vec<Rule>,
}

/// One `FROM:TO`; both ends of the range belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    low: u32,
    high: u32,
    to: u32,
}

/// The largest id: all ones means "unchanged" to the kernel and names nobody.
const LAST_ID: u32 = u32::MAX - 1;

/// What is wrong with a mapping.
#[derive(Debug, thiserror::Error)]
pub enum IdMapError {
    #[error("{option}: {pair:?} has no colon; each pair is FROM:TO")]
    NoColon { option: &'static str, pair: String },
    #[error("{option}: {pair:?} has nothing after its colon")]
    NoTarget { option: &'static str, pair: String },
    #[error("{option}: {text:?} is not an id from 0 to 4294967294")]
    BadId { option: &'static str, text: String },
    #[error("{option}: the range {text:?} ends before it begins")]
    EmptyRange { option: &'static str, text: String },
    #[error("{option}: {name:?} is unknown on this machine; give its number")]
    UnknownName { option: &'static str, name: String },
    #[error("{option}: {text:?} would match names, but copyd compares ids only; use *, a number or a range")]
    Pattern { option: &'static str, text: String },
    #[error("--chown conflicts with {option}: both map the same")]
    Conflict { option: &'static str },
    #[error("{option}: the database of names can't be read")]
    Database {
        option: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Which database of names an option speaks of.
#[derive(Clone, Copy)]
enum Names {
    Users,
    Groups,
}

impl IdMap {
    /// Changes nothing.
    pub const IDENTITY: Self = Self { users: Vec::new(), groups: Vec::new() };

    /// Reads the values of `--usermap`, `--groupmap` and `--chown`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(usermap: Option<&str>, groupmap: Option<&str>, chown: Option<&str>) -> Result<Self, IdMapError> {
        let mut users = pairs(usermap.unwrap_or_default(), "--usermap", Names::Users)?;
        let mut groups = pairs(groupmap.unwrap_or_default(), "--groupmap", Names::Groups)?;
        let (user, group) = chown.map_or(("", ""), |value| value.split_once(':').unwrap_or((value, "")));
        if !user.is_empty() {
            if usermap.is_some() {
                return Err(IdMapError::Conflict { option: "--usermap" });
            }
            users.push(Rule { low: 0, high: LAST_ID, to: id(user, "--chown", Names::Users)? });
        }
        if !group.is_empty() {
            if groupmap.is_some() {
                return Err(IdMapError::Conflict { option: "--groupmap" });
            }
            groups.push(Rule { low: 0, high: LAST_ID, to: id(group, "--chown", Names::Groups)? });
        }
        Ok(Self { users, groups })
    }

    /// Whether every id stays as it is because nothing was asked for.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// The user that an entry of `uid` belongs to at the destination.
    #[must_use]
    pub fn uid(&self, uid: u32) -> u32 {
        first(&self.users, uid)
    }

    /// The group that an entry of `gid` belongs to at the destination.
    #[must_use]
    pub fn gid(&self, gid: u32) -> u32 {
        first(&self.groups, gid)
    }

    /// The mapping in numbers, the same for options that mean the same ids; empty for the
    /// identity. A resumed job compares it.
    #[must_use]
    pub fn canonical(&self) -> String {
        let parts = [("users", self.users_text()), ("groups", self.groups_text())];
        let parts = parts.iter().filter_map(|(name, text)| text.as_ref().map(|text| format!("{name}={text}")));
        parts.collect::<Vec<_>>().join(";")
    }

    /// What `--usermap` would say, in numbers; `None` where users stay as they are.
    #[must_use]
    pub fn users_text(&self) -> Option<String> {
        text(&self.users)
    }

    /// What `--groupmap` would say, in numbers; `None` where groups stay as they are.
    #[must_use]
    pub fn groups_text(&self) -> Option<String> {
        text(&self.groups)
    }
}

fn text(rules: &[Rule]) -> Option<String> {
    let pairs: Vec<_> = rules.iter().map(|r| format!("{}-{}:{}", r.low, r.high, r.to)).collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}

fn first(rules: &[Rule], id: u32) -> u32 {
    rules.iter().find(|rule| (rule.low..=rule.high).contains(&id)).map_or(id, |rule| rule.to)
}

fn pairs(value: &str, option: &'static str, names: Names) -> Result<Vec<Rule>, IdMapError> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    value.split(',').map(|text| pair(text, option, names)).collect()
}

fn pair(text: &str, option: &'static str, names: Names) -> Result<Rule, IdMapError> {
    let (from, to) = text.split_once(':').ok_or_else(|| IdMapError::NoColon { option, pair: text.to_owned() })?;
    if to.is_empty() {
        return Err(IdMapError::NoTarget { option, pair: text.to_owned() });
    }
    let to = id(to, option, names)?;
    let (low, high) = match from {
        "" | "*" => (0, LAST_ID),
        _ if from.starts_with(|c: char| c.is_ascii_digit()) => match from.split_once('-') {
            Some((low, high)) => (number(low, option)?, number(high, option)?),
            None => (number(from, option)?, number(from, option)?),
        },
        _ if from.contains(['*', '?', '[']) => {
            return Err(IdMapError::Pattern { option, text: from.to_owned() });
        }
        name => {
            let id = id(name, option, names)?;
            (id, id)
        }
    };
    if low > high {
        return Err(IdMapError::EmptyRange { option, text: from.to_owned() });
    }
    Ok(Rule { low, high, to })
}

/// A number, or a name of this machine. rsync takes for a number what begins with a digit.
fn id(text: &str, option: &'static str, names: Names) -> Result<u32, IdMapError> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return number(text, option);
    }
    let unknown = || IdMapError::UnknownName { option, name: text.to_owned() };
    let name = CString::new(text).map_err(|_| unknown())?;
    let found = match names {
        Names::Users => sys::user_id(&name),
        Names::Groups => sys::group_id(&name),
    };
    found.map_err(|source| IdMapError::Database { option, source })?.ok_or_else(unknown)
}

fn number(text: &str, option: &'static str) -> Result<u32, IdMapError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = text.parse().ok().filter(|id| digits && *id <= LAST_ID);
    parsed.ok_or_else(|| IdMapError::BadId { option, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(map: &str) -> IdMap {
        IdMap::parse(Some(map), None, None).expect("a good map")
    }

    fn error(usermap: &str) -> IdMapError {
        IdMap::parse(Some(usermap), None, None).expect_err("a bad map")
    }

    #[test]
    fn the_first_match_wins_and_ranges_hold_both_ends() {
        let map = users("0-99:200,50:1,100:root,*:65534");
        assert_eq!([0, 50, 99, 100, 101].map(|uid| map.uid(uid)), [200, 200, 200, 0, 65534]);
        assert_eq!(map.gid(50), 50, "groups have a map of their own");
    }

    #[test]
    fn an_empty_from_matches_every_id_because_no_id_has_a_name() {
        assert_eq!(users(":7").uid(12345), 7);
        assert_eq!(users("5:6,:7").canonical(), users("5:6,*:7").canonical());
    }

    #[test]
    fn chown_maps_everything_and_either_half_may_be_missing() {
        let map = |value| IdMap::parse(None, None, Some(value)).expect("a good map");
        assert_eq!((map("7:8").uid(1), map("7:8").gid(1)), (7, 8));
        assert_eq!((map("7").uid(1), map("7").gid(1)), (7, 1));
        assert_eq!((map("7:").uid(1), map("7:").gid(1)), (7, 1));
        assert_eq!((map(":root").uid(1), map(":root").gid(1)), (1, 0));
        assert!(map("").is_identity());
        let both = IdMap::parse(Some("1:2"), None, Some(":8")).expect("different halves");
        assert_eq!((both.uid(1), both.gid(1)), (2, 8));
        assert!(matches!(
            IdMap::parse(Some("1:2"), None, Some("8")),
            Err(IdMapError::Conflict { option: "--usermap" })
        ));
        assert!(matches!(
            IdMap::parse(None, Some("1:2"), Some(":8")),
            Err(IdMapError::Conflict { option: "--groupmap" })
        ));
    }

    #[test]
    fn names_of_the_options_resolve_to_numbers() {
        assert_eq!(users("root:5").uid(0), 5);
        assert_eq!(users("root:5").canonical(), "users=0-0:5");
        assert_eq!(users("nobody:root").canonical(), "users=65534-65534:0");
    }

    #[test]
    fn what_is_wrong_is_said_by_type() {
        assert!(matches!(error("5"), IdMapError::NoColon { .. }));
        assert!(matches!(error("5:6,"), IdMapError::NoColon { .. }));
        assert!(matches!(error("5:"), IdMapError::NoTarget { .. }));
        assert!(matches!(error("5x:6"), IdMapError::BadId { .. }));
        assert!(matches!(error("5:6x"), IdMapError::BadId { .. }));
        assert!(matches!(error("4294967295:1"), IdMapError::BadId { .. }));
        assert!(matches!(error("1:99999999999"), IdMapError::BadId { .. }));
        assert!(matches!(error("1-:1"), IdMapError::BadId { .. }));
        assert!(matches!(error("9-1:1"), IdMapError::EmptyRange { .. }));
        assert!(matches!(error("w*:1"), IdMapError::Pattern { .. }));
        assert!(matches!(error("no such user:1"), IdMapError::UnknownName { .. }));
        assert!(matches!(error("1:no\0body"), IdMapError::UnknownName { .. }));
        assert_eq!(error("1:x!").to_string(), "--usermap: \"x!\" is unknown on this machine; give its number");
    }

    #[test]
    fn the_identity_is_the_default_and_has_an_empty_canonical_form() {
        let map = IdMap::parse(None, None, None).expect("nothing asked");
        assert!(map.is_identity() && map == IdMap::default());
        assert_eq!((map.uid(u32::MAX), map.canonical().as_str()), (u32::MAX, ""));
        assert_eq!(users("1:2").gid(9), 9);
        let both = IdMap::parse(Some("1:2,3-4:5"), Some("*:6"), None).expect("good");
        assert_eq!(both.canonical(), "users=1-1:2,3-4:5;groups=0-4294967294:6");
    }
}
