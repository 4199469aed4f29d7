//! Keys that are assigned to natural keys once: the registry outlives rebuilds of the table, so a key never means another row.

use subak_connect::{ConnectError, ConnectErrorKind, TableName};
use subak_domain::SurrogateKey;

use super::{Session, Stage, all_of, contains, row_id};

/// The registry of a table's keys.
fn registry(table: &TableName) -> TableName {
    let schema = table.schema.as_deref().map(|schema| format!("{schema}__")).unwrap_or_default();
    TableName { schema: Some("_subak".to_owned()), name: format!("keys__{schema}{}", table.name) }
}

/// Fills the key column of a stage, whose first column it is, and adds the row for the unknown. Keys that were given before stay;
/// new natural keys get the next numbers in their own order. Rows that share a natural key are numbered, so that each has a key of
/// its own. What is entered into the registry stays even if the load fails: the next one finds it.
pub(crate) fn assign(session: &dyn Session, stage: &Stage, table: &TableName, key: &SurrogateKey) -> Result<(), ConnectError> {
    let dialect = session.dialect();
    let (staged, known) = (dialect.table(&stage.rows), dialect.table(&registry(table)));
    let mut words = session.relation(&stage.rows)?.map(|relation| relation.columns).unwrap_or_default();
    // A stage that numbers its rows does so in a column.
    let number = dialect.row_column.map(|(name, _)| name).filter(|number| words.iter().any(|(name, _)| name == number));
    words.retain(|(name, _)| Some(name.as_str()) != number);
    let columns: Vec<String> = words.iter().map(|(name, _)| name.clone()).collect();
    if let Some(missing) = key.of.iter().find(|column| !contains(&columns, column)) {
        let message = format!("the surrogate key of `{table}` is made of `{missing}`, which its query does not return");
        return Err(ConnectError::new(ConnectErrorKind::ColumnMissing, message));
    }
    let natural = dialect.identifiers(&key.of);
    words.retain(|(name, _)| contains(&key.of, name));
    if session.relation(&registry(table))?.is_none() {
        let list: Vec<String> = words.iter().map(|(name, word)| format!("{} {word}", dialect.identifier(name))).collect();
        session.execute(&format!("create table {known} (surrogate_key bigint, row_place bigint, {})", list.join(", ")))?;
    }
    let row_id = number.map_or_else(|| row_id(dialect, &columns), Ok)?;
    let same_natural = dialect.partition(&words);
    let order = dialect.identifiers(&columns);
    let numbered = format!(
        "(select {row_id} as __subak_row, row_number() over (partition by {same_natural} order by {order}) as row_place, {natural} from {staged}) as n"
    );
    let same = all_of(&key.of, |column| {
        let column = dialect.identifier(column);
        format!("k.{column} {} n.{column}", dialect.null_safe_equal)
    });
    session.execute(&format!(
        "insert into {known} (surrogate_key, row_place, {natural}) select (select coalesce(max(surrogate_key), 0) from {known}) + \
         row_number() over (order by {natural}, row_place), row_place, {natural} from {numbered} \
         where not exists (select 1 from {known} as k where k.row_place = n.row_place and {same})"
    ))?;
    let quoted_key = dialect.identifier(&key.column);
    let given = format!(
        "(select n.__subak_row, k.surrogate_key from {numbered} join {known} as k on k.row_place = n.row_place and {same}) as m"
    );
    let same_row = format!("{staged}.{row_id} = m.__subak_row");
    session.execute(&dialect.update_from(&staged, &[(&quoted_key, "m.surrogate_key".to_owned())], &given, &same_row))?;
    if let Some(unknown) = key.unknown {
        session.execute(&format!("insert into {staged} ({quoted_key}) values ({unknown})"))?;
    }
    Ok(())
}
