//! The console in a real browser, as an operator uses it.

use hashinsight_demo::Result;
use hashinsight_demo::script::wait_for_readings;
use hashinsight_tests::browser::Browser;
use hashinsight_tests::{SITE, needs, one_site};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn an_operator_signs_in_orders_a_reduction_and_stops_it() {
    let Some(driver) = needs::tool("the console in a browser", &["chromedriver"]) else { return };
    operate(&driver).unwrap();
}

fn operate(driver: &std::path::Path) -> Result<()> {
    let mut sandbox = one_site(&[("gateway", 40)], 5, 10.0)?;
    let world = &mut sandbox.world;
    wait_for_readings(world)?;
    let browser = Browser::start(driver, sandbox.folder.path(), 1400, 900)?;
    let base = format!("http://{}", world.http);
    browser.open(&format!("{base}/"))?;
    browser.fill("input[name=name]", "owner")?;
    browser.fill("input[name=password]", world.owner_password.as_deref().unwrap_or_default())?;
    browser.click("main form button.primary")?;

    // The one-time password opens nothing but the page that replaces it.
    browser.wait_for("password", SOON)?;
    browser.fill("input[name=old]", world.owner_password.as_deref().unwrap_or_default())?;
    browser.fill("input[name=new]", "a much longer passphrase")?;
    browser.fill("input[name=again]", "a much longer passphrase")?;
    browser.click("main form button.primary")?;

    // The answer to the form comes first, or it takes the browser back to where it leads.
    browser.wait_for("Miners answering", SOON)?;
    let site = world.site_id(SITE)?.to_owned();
    browser.open(&format!("{base}/sites/{site}"))?;
    browser.wait_for("Antminer", SOON)?;
    // The page lives: its figures change without a reload.
    let before = browser.text()?;
    hashinsight_demo::process::until("a change on the live page", SOON, || {
        Ok((browser.text()? != before).then_some(()))
    })?;

    browser.open(&format!("{base}/sites/{site}/curtailment"))?;
    browser.fill("input[name=kw]", "20")?;
    browser.fill("input[name=minutes]", "10")?;
    browser.click("button[value=preview]")?;
    browser.wait_for("J/TH", SOON)?;
    browser.click("button[value=send]")?;
    browser.wait_for("Stop now", SOON)?;
    browser.wait_for("Holding", Duration::from_secs(90))?;
    assert_eq!(browser.eval("return document.documentElement.scrollWidth <= window.innerWidth")?, true);
    Ok(())
}
