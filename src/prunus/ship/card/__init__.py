"""What does a bundle say about itself to people and to auditors: a model card, and a bill of materials."""

from prunus.ship.card.bill_of_materials import BILL, bill_of_materials
from prunus.ship.card.card_facts import CardFacts, Change, Comparison, Cost, DataSaid, Measured
from prunus.ship.card.model_card import CARD, model_card

__all__ = [
    "BILL",
    "CARD",
    "CardFacts",
    "Change",
    "Comparison",
    "Cost",
    "DataSaid",
    "Measured",
    "bill_of_materials",
    "model_card",
]
