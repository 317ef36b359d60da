"""Sentences written for this project: public text that tells nothing about anyone's data.

They serve to look at a model's activations without touching a private record.
"""

SENTENCES = (
    "The kettle whistles long before anyone remembers to switch it off.",
    "A quiet harbour town wakes up when the first ferry sounds its horn.",
    "Nobody expected the second half to be so much slower than the first.",
    "She repaired the old bicycle with patience and a borrowed spanner.",
    "The lecture was dense, but the examples made every step clear.",
    "Rain fell for three days, and the river rose to the lowest bridge.",
    "He forgot the tickets, the map and, in the end, the way home.",
    "An honest account of a difficult year, told without self-pity.",
    "The soup needs salt, more time and rather less enthusiasm.",
    "Two brothers argue about a fence that neither of them wants.",
    "The museum's new wing is bright, airy and almost empty.",
    "It promises a great deal in the opening and delivers very little of it.",
    "The orchestra found its warmth only in the slow movement.",
    "Our train stopped in a field of sunflowers for no stated reason.",
    "A careful reader will notice that the last chapter was written first.",
    "The phone is light and fast, and its battery lasts until supper.",
    "They planted apple trees where the car park used to be.",
    "What begins as a joke turns into something close to wisdom.",
    "The instructions are wrong in two places and unclear in a third.",
    "Children ran ahead while the adults discussed the price of oil.",
    "The actors do what they can with lines that nobody would say.",
    "A small bakery on the corner sells out of rye bread by nine.",
    "The committee met, adjourned, and met again to approve the minutes.",
    "There is real tenderness here, hidden under a clumsy plot.",
    "The new timetable saves four minutes and costs us our seats.",
    "Snow made the village look tidier than it had ever been.",
    "It is long, loud and strangely forgettable.",
    "The gardener explained why roses sulk after being moved.",
    "A film of great patience, rewarding those who have some of their own.",
    "The experiment failed in a way that taught them more than success.",
    "Her first novel is funny on every page and sad on the last.",
    "The hotel was clean, cheap and an hour from anywhere.",
)
