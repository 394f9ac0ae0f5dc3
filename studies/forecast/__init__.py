"""Notebooks 30 and 35: how good are the forecasts of each forecaster?"""
