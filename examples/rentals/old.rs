//! The array on the customer. Times stand in it in UTC, without saying so.

use sqlx::{PgConnection, PgPool};

use crate::shop::{Change, Rental, Result, Row};

pub(crate) async fn list(pool: PgPool, customer: i32) -> Result<Vec<Rental>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select r.rental_id, extract(epoch from r.rental_date)::bigint, r.inventory_id,
                extract(epoch from r.return_date)::bigint
         from customer c, jsonb_to_recordset(c.rentals) as r (
             rental_id integer, rental_date timestamp, inventory_id integer, return_date timestamp)
         where c.customer_id = $1 order by r.rental_id",
    )
    .bind(customer)
    .fetch_all(&pool)
    .await?;
    Ok(rows.into_iter().map(Rental::from).collect())
}

/// Answers how many customers it has changed.
pub(crate) async fn apply(connection: &mut PgConnection, customer: i32, change: &Change) -> Result<u64> {
    let query = match change {
        Change::Join => sqlx::query(
            "insert into customer
                 (customer_id, store_id, first_name, last_name, address_id, active, create_date, last_update)
             values ($1, 1, 'A', 'VISITOR', 1, true, now(), now())",
        )
        .bind(customer),
        Change::Leave => sqlx::query("delete from customer where customer_id = $1").bind(customer),
        Change::Rent(rental) => sqlx::query(
            "update customer set rentals = rentals || jsonb_build_object(
                 'rental_id', $2, 'rental_date', to_timestamp($3) at time zone 'UTC', 'inventory_id', $4,
                 'return_date', null, 'staff_id', 1, 'last_update', to_timestamp($3) at time zone 'UTC')
             where customer_id = $1",
        )
        .bind(customer)
        .bind(rental.rental_id)
        .bind(rental.rental_date as f64)
        .bind(rental.inventory_id),
        Change::Return { rental_id, at } => sqlx::query(
            "update customer set rentals = (
                 select jsonb_agg(case when r->'rental_id' = to_jsonb($2) then r || jsonb_build_object(
                     'return_date', to_timestamp($3) at time zone 'UTC',
                     'last_update', to_timestamp($3) at time zone 'UTC') else r end order by n)
                 from jsonb_array_elements(rentals) with ordinality as t (r, n))
             where customer_id = $1",
        )
        .bind(customer)
        .bind(rental_id)
        .bind(*at as f64),
    };
    Ok(query.execute(connection).await?.rows_affected())
}
