//! Roles and what each may do. What is not granted here is denied.

use crate::error::{Error, Result};
use serde::Serialize;

/// What a user is to this installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Owner,
    Admin,
    Operator,
    /// Approves and stops plans that others order.
    Approver,
    Technician,
    Viewer,
}

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// See sites, miners, plans.
    ViewFleet,
    /// Take stored readings away.
    ExportReadings,
    /// Preview and write plans.
    OrderPlans,
    /// Approve and stop plans: miners stop and start.
    RunPlans,
    /// Read the server's own counters.
    SeeMetrics,
}

impl Role {
    pub const ALL: [Self; 6] =
        [Self::Owner, Self::Admin, Self::Operator, Self::Approver, Self::Technician, Self::Viewer];

    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Technician => "technician",
            Self::Viewer => "viewer",
        }
    }

    /// # Errors
    /// There is no role of this name; the text lists them.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("there is no role \"{name}\"; the roles are {names}"))
        })
    }

    pub fn may(self, permission: Permission) -> bool {
        use Permission::*;
        match self {
            Self::Owner | Self::Admin | Self::Operator => {
                matches!(permission, ViewFleet | ExportReadings | OrderPlans | RunPlans | SeeMetrics)
            }
            Self::Approver => matches!(permission, ViewFleet | ExportReadings | RunPlans),
            Self::Technician => matches!(permission, ViewFleet | ExportReadings),
            Self::Viewer => matches!(permission, ViewFleet),
        }
    }
}
