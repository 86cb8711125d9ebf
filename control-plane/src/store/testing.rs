//! Stores for tests: SQLite in their folder, or a PostgreSQL database that stands for it.

use super::Stores;
use std::path::Path;

/// The stores of a test's folder.
pub async fn stores(folder: &Path) -> Stores {
    match hashinsight_test_postgres::url_for(folder) {
        Some(url) => {
            let url = url.parse().unwrap();
            Stores::open_postgres(&url, &url).await.unwrap()
        }
        None => Stores::open(folder).await.unwrap(),
    }
}

#[test]
fn the_same_tests_pass_on_postgresql() {
    hashinsight_test_postgres::same_tests("the control plane's tests on PostgreSQL");
}
