//! Writes replies of the CGMiner API, in its JSON or its text form from the same calls.
//!
//! Nothing is built and then printed: every value goes straight into the reply's bytes.

use std::fmt::{self, Write as _};

/// How a firmware words its STATUS part.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Keys of STATUS in alphabetical order, as LuxOS writes them.
    pub sorted: bool,
    /// No Description in "Invalid command", as cgminer has it.
    pub bare_invalid: bool,
}

/// A reply under construction.
#[derive(Debug)]
pub struct Reply {
    pub buf: String,
    json: bool,
    /// A value was written in the open object, so that the next needs a comma.
    comma: bool,
    rows: u32,
    /// Rows follow each other without a comma: the `}{` of old Antminers.
    pub glued_rows: bool,
}

impl Reply {
    pub fn new(json: bool) -> Self {
        Self { buf: String::with_capacity(2048), json, comma: false, rows: 0, glued_rows: false }
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Text put in as it is.
    pub fn put(&mut self, args: fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _ = self.buf.write_fmt(args);
    }

    /// Opens the reply with its STATUS part.
    pub fn status(
        &mut self,
        dialect: Dialect,
        letter: char,
        when: i64,
        code: u32,
        msg: &str,
        desc: Option<&str>,
    ) {
        if self.json {
            self.put(format_args!("{{\"STATUS\":[{{"));
            self.comma = false;
            if dialect.sorted {
                self.int("Code", code);
                if let Some(desc) = desc {
                    self.str("Description", desc);
                }
                self.str("Msg", msg);
                self.put(format_args!(",\"STATUS\":\"{letter}\""));
                self.int("When", when);
            } else {
                self.put(format_args!("\"STATUS\":\"{letter}\""));
                self.comma = true;
                self.int("When", when);
                self.int("Code", code);
                self.str("Msg", msg);
                if let Some(desc) = desc {
                    self.str("Description", desc);
                }
            }
            self.put(format_args!("}}]"));
        } else {
            self.put(format_args!("STATUS={letter},When={when},Code={code}"));
            self.comma = true;
            self.str("Msg", msg);
            if let Some(desc) = desc {
                self.str("Description", desc);
            }
            self.put(format_args!("|"));
        }
    }

    /// Opens a list of rows.
    pub fn rows(&mut self, name: &str) {
        if self.json {
            self.put(format_args!(",\"{name}\":["));
        }
        self.rows = 0;
    }

    /// Opens a row that has no number: text names it after its list.
    pub fn row(&mut self, name: &str) {
        self.begin_row();
        if self.json {
            self.comma = false;
        } else {
            self.put(format_args!("{name}"));
            self.comma = true;
        }
    }

    /// Opens a numbered row, `"POOL":0`.
    pub fn row_n(&mut self, key: &str, n: usize) {
        self.begin_row();
        self.comma = false;
        self.int(key, n as i64);
    }

    fn begin_row(&mut self) {
        if self.json {
            let comma = if self.rows > 0 && !self.glued_rows { "," } else { "" };
            self.put(format_args!("{comma}{{"));
        }
        self.rows += 1;
    }

    pub fn end_row(&mut self) {
        self.put(format_args!("{}", if self.json { "}" } else { "|" }));
        self.comma = true;
    }

    pub fn end_rows(&mut self) {
        if self.json {
            self.put(format_args!("]"));
        }
    }

    /// Closes the reply.
    pub fn end(&mut self) {
        if self.json {
            self.put(format_args!(",\"id\":1}}"));
        }
    }

    /// A value as it is printed.
    pub fn raw(&mut self, key: &str, value: fmt::Arguments<'_>) {
        if self.comma {
            self.buf.push(',');
        }
        self.comma = true;
        if self.json {
            self.put(format_args!("\"{key}\":"));
        } else {
            self.put(format_args!("{key}="));
        }
        self.put(value);
    }

    pub fn int(&mut self, key: &str, value: impl fmt::Display) {
        self.raw(key, format_args!("{value}"));
    }

    /// A number with this many decimals.
    pub fn num(&mut self, key: &str, value: f64, decimals: usize) {
        self.raw(key, format_args!("{value:.decimals$}"));
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.raw(key, format_args!("{value}"));
    }

    /// Text, escaped as the form wants it.
    pub fn str(&mut self, key: &str, value: &str) {
        self.raw(key, format_args!(""));
        if self.json {
            self.buf.push('"');
        }
        for c in value.chars() {
            let special = if self.json { "\"\\" } else { "|,=\\" };
            if special.contains(c) {
                self.buf.push('\\');
            }
            self.buf.push(c);
        }
        if self.json {
            self.buf.push('"');
        }
    }

    /// A number in quotes in JSON, as several firmwares have it.
    pub fn quoted(&mut self, key: &str, value: fmt::Arguments<'_>) {
        if self.json { self.raw(key, format_args!("\"{value}\"")) } else { self.raw(key, value) }
    }
}

/// Rounded to what a reply with so many decimals says.
pub fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Dialect = Dialect { sorted: false, bare_invalid: true };

    fn sample(json: bool, glued: bool) -> String {
        let mut r = Reply::new(json);
        r.glued_rows = glued;
        r.status(PLAIN, 'S', 5, 7, "2 Pool(s)", Some("cgminer 4.13.6"));
        r.rows("POOLS");
        for i in 0..2 {
            r.row_n("POOL", i);
            r.str("URL", "a\"b|c");
            r.num("Diff", 0.5, 4);
            r.bool("GBT", false);
            r.end_row();
        }
        r.end_rows();
        r.end();
        r.buf
    }

    #[test]
    fn one_set_of_calls_writes_both_forms() {
        assert_eq!(
            sample(true, false),
            r#"{"STATUS":[{"STATUS":"S","When":5,"Code":7,"Msg":"2 Pool(s)","Description":"cgminer 4.13.6"}],"POOLS":[{"POOL":0,"URL":"a\"b|c","Diff":0.5000,"GBT":false},{"POOL":1,"URL":"a\"b|c","Diff":0.5000,"GBT":false}],"id":1}"#
        );
        assert_eq!(
            sample(false, false),
            "STATUS=S,When=5,Code=7,Msg=2 Pool(s),Description=cgminer 4.13.6|POOL=0,URL=a\"b\\|c,Diff=0.5000,GBT=false|POOL=1,URL=a\"b\\|c,Diff=0.5000,GBT=false|"
        );
        assert!(sample(true, true).contains("}{\"POOL\":1"));
    }

    #[test]
    fn luxos_sorts_its_status() {
        let mut r = Reply::new(true);
        r.status(
            Dialect { sorted: true, bare_invalid: false },
            'E',
            9,
            14,
            "Invalid command",
            Some("LUXminer"),
        );
        r.end();
        assert_eq!(
            r.buf,
            r#"{"STATUS":[{"Code":14,"Description":"LUXminer","Msg":"Invalid command","STATUS":"E","When":9}],"id":1}"#
        );
    }
}
