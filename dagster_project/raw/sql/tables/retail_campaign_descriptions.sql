from publisher_campaign_descriptions
where start_date < (select as_of from scope)
