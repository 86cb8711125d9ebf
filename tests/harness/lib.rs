//! What end-to-end tests share: the real programs, a world of them, a browser.
//!
//! Tests start their own processes on free ports and in folders of their own, so that they run side by
//! side. Nothing here stands in for a part of the product.

pub mod browser;
pub mod needs;

use hashinsight_demo::Result;
use hashinsight_demo::world::{AgentPlan, Plan, World, build_programs};
use std::path::PathBuf;
use std::sync::OnceLock;
use tempfile::TempDir;

/// The folder of the built programs; they are built when this is first asked.
///
/// # Panics
/// They can't be built: without them there is nothing to test.
pub fn programs() -> PathBuf {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS
        .get_or_init(|| {
            let here = build_programs().expect("the programs build");
            // A test's own executable lies one folder deeper than the programs.
            here.parent().expect("a target folder").to_owned()
        })
        .clone()
}

/// A world in a temporary folder, which goes with it.
pub struct Sandbox {
    pub world: World,
    pub folder: TempDir,
}

/// One site, one agent a name.
///
/// # Errors
/// The world doesn't start.
pub fn one_site(agents: &[(&str, u32)], cycle_s: u32, time_scale: f64) -> Result<Sandbox> {
    let folder = TempDir::new().map_err(hashinsight_demo::Failure::of("a temporary folder"))?;
    let agents = agents.iter().map(|(name, miners)| AgentPlan {
        name: (*name).to_owned(),
        site: SITE.to_owned(),
        miners: *miners,
    });
    let plan = Plan {
        folder: folder.path().join("world"),
        programs: programs(),
        http_port: 0,
        agents: agents.collect(),
        cycle_s,
        time_scale,
        mix: None,
        seed: 11,
        environment: Vec::new(),
    };
    let world = World::start(plan, &mut |_| {})?;
    Ok(Sandbox { world, folder })
}

/// Name of the site of [`one_site`].
pub const SITE: &str = "Test Site";
