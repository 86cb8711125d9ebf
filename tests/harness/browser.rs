//! A real browser, driven over WebDriver.

use hashinsight_demo::process::{Process, until};
use hashinsight_demo::{Failure, Result};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long a page may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// The key of an element's id in WebDriver's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window.
pub struct Browser {
    agent: ureq::Agent,
    session: String,
    // Ends the browser with it.
    _driver: Process,
}

impl Browser {
    /// Starts headless Chromium by its driver.
    ///
    /// # Errors
    /// One of them doesn't start.
    pub fn start(driver: &Path, folder: &Path, width: u32, height: u32) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let port = port.map_err(Failure::of("a port for the driver"))?.port();
        let mut command = Command::new(driver);
        command.arg(format!("--port={port}"));
        let mut process = Process::start("chromedriver", command, &folder.join("chromedriver.log"))?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false);
        let agent = config.build().new_agent();
        let base = format!("http://127.0.0.1:{port}");
        until("the browser's driver", PATIENCE, || {
            process.check()?;
            Ok(agent.get(format!("{base}/status")).call().ok().map(|_| ()))
        })?;
        let profile = folder.join("browser");
        let options = json!({"args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage",
            format!("--window-size={width},{height}"), format!("--user-data-dir={}", profile.display()),
        ]});
        let ask = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let answer = send(&agent, &format!("{base}/session"), &ask)?;
        let id = answer["sessionId"].as_str().ok_or_else(|| Failure::new(format!("no browser: {answer}")))?;
        Ok(Self { session: format!("{base}/session/{id}"), agent, _driver: process })
    }

    fn call(&self, what: &str, body: &Value) -> Result<Value> {
        send(&self.agent, &format!("{}/{what}", self.session), body)
    }

    pub fn open(&self, url: &str) -> Result<()> {
        self.call("url", &json!({"url": url})).map(|_| ())
    }

    fn find(&self, css: &str) -> Result<String> {
        until(&format!("\"{css}\" on the page"), PATIENCE, || {
            let found = self.call("element", &json!({"using": "css selector", "value": css}));
            Ok(found.ok().and_then(|e| e[ELEMENT].as_str().map(str::to_owned)))
        })
    }

    /// Types into a field, in place of what stands there.
    pub fn fill(&self, css: &str, text: &str) -> Result<()> {
        let element = self.find(css)?;
        self.call(&format!("element/{element}/clear"), &json!({}))?;
        self.call(&format!("element/{element}/value"), &json!({"text": text})).map(|_| ())
    }

    pub fn click(&self, css: &str) -> Result<()> {
        let element = self.find(css)?;
        self.call(&format!("element/{element}/click"), &json!({})).map(|_| ())
    }

    /// What a script on the page returns.
    pub fn eval(&self, script: &str) -> Result<Value> {
        self.call("execute/sync", &json!({"script": script, "args": []}))
    }

    /// The page's text as a person sees it.
    pub fn text(&self) -> Result<String> {
        let text = self.eval("return document.body.innerText")?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page shows `text`.
    pub fn wait_for(&self, text: &str, most: Duration) -> Result<()> {
        let shown = until(&format!("\"{text}\" on the page"), most, || {
            Ok(self.text().is_ok_and(|t| t.contains(text)).then_some(()))
        });
        shown.map_err(|e| Failure::new(format!("{e}; it shows:\n{}", self.text().unwrap_or_default())))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver is ended next, and the browser with it.
        let _ = self.agent.delete(&self.session).call();
    }
}

fn send(agent: &ureq::Agent, url: &str, body: &Value) -> Result<Value> {
    let mut response = agent.post(url).send_json(body)?;
    let mut answer: Value = response.body_mut().read_json()?;
    if response.status().is_success() {
        return Ok(answer["value"].take());
    }
    let words = answer["value"]["message"].as_str().unwrap_or_default();
    Err(Failure::new(words.lines().next().unwrap_or_default()))
}
