//! Who may do what: permissions, the roles that carry them, and what is granted besides.

use std::fmt;
use std::str::FromStr;

/// Something that a person or a program may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// See what is declared and what became of it: names, statuses, counts, causes.
    View,
    /// Read what programs wrote.
    Logs,
    /// See rows of tables.
    Data,
    /// Start, stop, resume, approve; switch what starts by itself on and off.
    Operate,
    /// Change what is declared.
    Edit,
    /// Manage people, tokens and the server.
    Administer,
}

impl Permission {
    /// All of them, the most common first.
    pub const ALL: [Self; 6] = [Self::View, Self::Logs, Self::Data, Self::Operate, Self::Edit, Self::Administer];

    /// The word for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Logs => "logs",
            Self::Data => "data",
            Self::Operate => "operate",
            Self::Edit => "edit",
            Self::Administer => "administer",
        }
    }
}

/// What somebody is to a project. Later ones may do all that earlier ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees what is declared and what became of it; logs and rows only where they are granted.
    Viewer,
    /// Keeps it going, and sees logs and rows.
    Operator,
    /// Changes what is declared, which is as much as running programs on the server.
    Editor,
    /// Manages people, tokens and the server.
    Admin,
}

impl Role {
    /// All of them, the least mighty first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Editor, Self::Admin];

    /// The word for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    /// Whether the role carries a permission.
    pub fn may(self, permission: Permission) -> bool {
        let least = match permission {
            Permission::View => Self::Viewer,
            Permission::Logs | Permission::Data | Permission::Operate => Self::Operator,
            Permission::Edit => Self::Editor,
            Permission::Administer => Self::Admin,
        };
        self >= least
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A word that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: viewer, operator, editor or admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// A role, and what is granted besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// The role.
    pub role: Role,
    /// Whether logs are granted.
    pub logs: bool,
    /// Whether rows are granted.
    pub data: bool,
}

impl Rights {
    /// The role alone.
    pub fn of(role: Role) -> Self {
        Self { role, logs: false, data: false }
    }

    /// Whether they carry a permission.
    pub fn may(&self, permission: Permission) -> bool {
        let is_granted = match permission {
            Permission::Logs => self.logs,
            Permission::Data => self.data,
            _ => false,
        };
        is_granted || self.role.may(permission)
    }

    /// The words of all that they carry.
    pub fn words(&self) -> Vec<&'static str> {
        Permission::ALL.into_iter().filter(|one| self.may(*one)).map(Permission::as_str).collect()
    }

    /// Whether they carry all that others do: nobody gives away more than they have.
    pub fn cover(&self, others: &Self) -> bool {
        Permission::ALL.into_iter().all(|permission| self.may(permission) || !others.may(permission))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of roles and permissions, in full.
    #[test]
    fn roles_carry_what_they_should() {
        let expected = [
            ("viewer", "view"),
            ("operator", "view logs data operate"),
            ("editor", "view logs data operate edit"),
            ("admin", "view logs data operate edit administer"),
        ];
        for (role, permissions) in expected {
            let role: Role = role.parse().expect("a role");
            let found: Vec<&str> = Permission::ALL.into_iter().filter(|one| role.may(*one)).map(Permission::as_str).collect();
            assert_eq!(found.join(" "), permissions, "{role}");
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn nobody_gives_away_more_than_they_have() {
        let viewer = Rights::of(Role::Viewer);
        let reader = Rights { logs: true, ..viewer };
        assert!(reader.cover(&viewer) && !viewer.cover(&reader));
        assert!(Rights::of(Role::Operator).cover(&Rights { logs: true, data: true, ..viewer }));
        assert!(!Rights::of(Role::Operator).cover(&Rights::of(Role::Editor)));
    }
}
