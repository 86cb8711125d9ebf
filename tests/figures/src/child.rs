//! The processes that a measurement is made of: this program again, told what to do in lines of JSON.
//!
//! A part ends when its standard input does, so none outlives the measurement.

use crate::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A part under way.
pub struct Part {
    name: &'static str,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Part {
    /// Starts a part and waits for its first line.
    pub fn start<R: DeserializeOwned>(name: &'static str, args: &[String]) -> Result<(Self, R)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("part").arg(name).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("the part {name}: {error}"))?;
        let orders = child.stdin.take();
        let answers = child.stdout.take().ok_or("a part without output")?;
        let mut part = Self { name, child, orders, answers: BufReader::new(answers) };
        let ready = part.answer()?;
        Ok((part, ready))
    }

    /// Gives an order and waits for its answer.
    pub fn ask<R: DeserializeOwned>(&mut self, order: &impl Serialize) -> Result<R> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let orders = self.orders.as_mut().ok_or("a part without input")?;
        orders.write_all(&line).map_err(|error| format!("the part {}: {error}", self.name))?;
        self.answer()
    }

    fn answer<R: DeserializeOwned>(&mut self) -> Result<R> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            return Err(format!("the part {} has ended by itself", self.name).into());
        }
        serde_json::from_str(&line).map_err(|error| format!("the part {}: {error}", self.name).into())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It may be busy with an order that nobody waits for any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other end: answers each line of standard input, until there are no more.
pub fn serve<O: DeserializeOwned, R: Serialize>(mut obey: impl FnMut(O) -> Result<R>) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        tell(&obey(serde_json::from_str(&line?)?)?)?;
    }
    Ok(())
}

/// Says one line.
pub fn tell(answer: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}
