"""Warehouse-native reverse ETL."""
