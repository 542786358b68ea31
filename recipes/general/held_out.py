"""What general models are judged by: sources no training hears, and AudioSet's labels of ESC's categories."""

HELD_SOURCES = frozenset(
    {
        "amsehili/auditok",
        "AudioKit/Cookbook",
        "danuker/yield-or-die",
        "debian:endless-sky-data",
        "hsbakshi/ambient-engine",
        "KenneyNL/Starter-Kit-Racing",
        "librosa/data",
        "microsoft/Xbox-ATG-Samples",
        "minetest-mirrors/ambience",
        "ncase/remember",
        "ncase/trust",
        "OpenRCT2/OpenSoundEffects",
        "Picovoice/leopard",
        "PopLocker714/animal-voice-repit",
        "Rikorose/DeepFilterNet",
        "rse/soundfx",
        "schmich/marinara",
        "sfence/powered_tools",
    }
)
"""Sources whose recordings only the judge hears: some of each kind of sound."""
CATEGORIES: dict[str, tuple[str, ...]] = {
    "car_horn": ("Vehicle horn, car horn, honking", "Toot", "Air horn, truck horn"),
    "cat": ("Cat", "Purr", "Meow", "Hiss", "Caterwaul"),
    "chainsaw": ("Chainsaw",),
    "chirping_birds": ("Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet", "Squawk"),
    "church_bells": ("Church bell", "Bell", "Change ringing (campanology)"),
    "clock_tick": ("Tick", "Tick-tock", "Clock"),
    "crackling_fire": ("Fire", "Crackle"),
    "crying_baby": ("Baby cry, infant cry", "Crying, sobbing", "Whimper"),
    "dog": ("Dog", "Bark", "Yip", "Howl", "Bow-wow", "Growling", "Whimper (dog)", "Domestic animals, pets"),
    "glass_breaking": ("Glass", "Shatter", "Breaking", "Chink, clink", "Smash, crash"),
    "helicopter": ("Helicopter",),
    "rain": ("Rain", "Raindrop", "Rain on surface"),
    "rooster": ("Chicken, rooster", "Crowing, cock-a-doodle-doo", "Fowl"),
    "sea_waves": ("Waves, surf", "Ocean"),
    "siren": (
        "Siren",
        "Civil defense siren",
        "Police car (siren)",
        "Ambulance (siren)",
        "Fire engine, fire truck (siren)",
        "Emergency vehicle",
    ),
    "sneezing": ("Sneeze",),
    "snoring": ("Snoring",),
    "thunderstorm": ("Thunderstorm", "Thunder"),
}
"""ESC's categories and the labels of AudioSet that mean them; chosen by their names, tuned on nothing."""
