//! The desired document: all that one agent should hold, whole, under one rising version.
//!
//! Its parts are length-prefixed and signed one by one, so that an agent stores and verifies each by
//! itself, and refuses alone what it cannot understand.

use crate::envelope::{Body, WireError, at_most};
use crate::ids::AgentId;
use crate::limits;
use crate::plan::PlanV1;
use crate::signing::{Purpose, Signature, SigningError, SigningKey, VerifyingKey};
use crate::units::Millis;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredDocumentV1 {
    pub agent: AgentId,
    /// Rises with every change; an agent takes no lower one.
    pub version: u64,
    pub issued: Millis,
    pub parts: Vec<SignedPartV1>,
}

/// A part: today a plan, told by its tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedPartV1 {
    pub signature: Signature,
    /// Tag and postcard form.
    pub body: Vec<u8>,
}

impl Body for DesiredDocumentV1 {
    const TAG: u16 = 1;
    const WHAT: &'static str = "a desired document";

    fn check(&self) -> Result<(), WireError> {
        at_most("a document's parts", self.parts.len(), limits::PLANS)
    }
}

impl SignedPartV1 {
    /// Signs a plan for one agent: for another agent the signature does not hold.
    ///
    /// # Errors
    /// The plan breaks a bound.
    pub fn plan(key: &SigningKey, agent: AgentId, plan: &PlanV1) -> Result<Self, WireError> {
        let body = plan.encode()?;
        let signature = key.sign(Purpose::Part, &[agent.as_bytes(), &body]);
        Ok(Self { signature, body })
    }

    /// # Errors
    /// The signature is that of none of the keys, or the part cannot be understood.
    pub fn open(&self, keys: &[VerifyingKey], agent: AgentId) -> Result<PlanV1, WireError> {
        let parts: [&[u8]; 2] = [agent.as_bytes(), &self.body];
        if !keys.iter().any(|key| key.verify(Purpose::Part, &parts, &self.signature).is_ok()) {
            return Err(SigningError::BadSignature.into());
        }
        PlanV1::decode(&self.body)
    }
}
