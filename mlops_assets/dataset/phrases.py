"""The words of the synthetic tickets: what customers of a small electronics shop write.

Every phrase belongs to one label, except where a comment says that it is ambiguous: real
tickets are, and nobody should reach 100%.
"""

QUEUES = {
    "billing": (
        "I was charged twice for the {product}",
        "the invoice for my {product} shows the wrong amount",
        "there is a fee of {amount} euros on my bill for the {product} that I do not know",
        "the payment for the {product} was taken twice from my account",
        "please send me a corrected invoice for the {product}",
        "the discount code was not taken off the price of the {product}",
        "the tax on my invoice for the {product} is wrong",
        "my bank shows a second payment of {amount} euros for the {product}",
        "I need a receipt for the {product} for my bookkeeping",
        "the monthly instalment for the {product} was booked too early",
    ),
    "shipping": (
        "my {product} has not arrived yet",
        "the parcel with the {product} is stuck in {city}",
        "the tracking number for the {product} does not work",
        "the courier left the {product} at the wrong address in {city}",
        "when will the {product} from order {order} be delivered",
        "the delivery of the {product} has been late for {days} days",
        "the parcel with the {product} came open and damaged by the courier",
        "please change the delivery address for the {product} to {city}",
        "tracking says the {product} was delivered but there is no parcel here",
        "the carrier keeps moving the delivery date of the {product}",
    ),
    "returns": (
        "I want to send the {product} back",
        "how do I return the {product} from order {order}",
        "please send a return label for the {product}",
        "I changed my mind and would like to return the {product}",
        "I sent the {product} back {days} days ago and wait for the refund",
        "the {product} is the wrong colour and I want to exchange it",
        "I would like to exchange the {product} for a larger one",
        "is the {product} still within the return period",
        "the return of the {product} was refused without a reason",
        "the refund for the returned {product} is missing {amount} euros",
    ),
    "technical": (
        "my {product} does not switch on any more",
        "the {product} keeps losing the connection",
        "after the last update the {product} crashes all the time",
        "the screen of the {product} stays black",
        "the {product} shows error {code}",
        "the battery of the {product} is empty after one hour",
        "the {product} gets very hot and makes a strange noise",
        "I cannot get the {product} to work with the wifi",
        "the buttons on the {product} have stopped reacting",
        "the firmware update of the {product} hangs at {days} percent",
    ),
    "account": (
        "I cannot log in to register my {product}",
        "the password reset mail for my account never comes, I need it for the {product}",
        "my account is locked and I cannot see my {product} in it",
        "please delete my account, the {product} is sold",
        "how do I change the name on my account for the {product}",
        "the security code for my login does not come, I want to set up the {product}",
        "I have two accounts and the {product} is in the wrong one",
        "somebody else has logged in to my account and removed the {product}",
        "the website says my password is wrong when I register the {product}",
        "please change the mail address of my login, the {product} stays mine",
    ),
    "sales": (
        "do you have the {product} in stock in {city}",
        "what does the {product} cost for a company with {days} people",
        "is there a discount when I buy {days} pieces of the {product}",
        "which {product} would you recommend for a small office",
        "can I get an offer for a new {product}",
        "will there be a newer model of the {product} this year",
        "does the {product} come with a longer warranty if I buy it now",
        "I am interested in buying a {product}, can you advise me",
        "can I try the {product} in your shop in {city} before I buy",
        "please send me a price list for the {product} and its accessories",
    ),
}

# Each could come from either queue: its writer decides, the reader cannot know.
AMBIGUOUS = (
    ("returns", "billing", "I was promised money back for the {product} and nothing came"),
    ("technical", "returns", "the {product} arrived broken, what now"),
    ("shipping", "sales", "order {order} for the {product} is still open, when can I have it"),
    ("account", "billing", "the {product} has disappeared from my orders on the website"),
)

PRODUCTS = {
    "laptop": ("laptop", "notebook", "ultrabook"),
    "phone": ("phone", "smartphone", "handset"),
    "router": ("router", "access point", "mesh router"),
    "printer": ("printer", "laser printer", "inkjet"),
    "camera": ("camera", "webcam", "video camera"),
    "headset": ("headset", "headphones", "earbuds"),
}
UNNAMED = ("device", "thing I bought", "article")  # says nothing about the product

PRIORITIES = {
    "low": (
        "There is no hurry.",
        "Whenever you find the time.",
        "It can wait until next week.",
        "This is not important, I only wonder.",
        "No rush at all.",
    ),
    "normal": (
        "Please let me know.",
        "I look forward to your answer.",
        "Please get back to me in the next days.",
        "Can you help me with this?",
        "What should I do?",
        "",
    ),
    "high": (
        "I need this solved soon.",
        "This is the second time I ask.",
        "I am quite annoyed by now.",
        "Please answer by tomorrow.",
        "I depend on it for my work.",
    ),
    "urgent": (
        "This is an emergency.",
        "Our whole office is standing still.",
        "I need help right now.",
        "It must be fixed today, we lose money every hour.",
        "Please call me at once, this is critical.",
    ),
}

CITIES = ("Utrecht", "Ghent", "Bremen", "Lyon", "Turin", "Malmo", "Graz", "Porto")

GREETINGS = {
    "plain": ("Hello,", "Hi,", "Good morning,", ""),
    "formal": ("Dear Sir or Madam,", "To whom it may concern,", "Dear support team,"),
    "terse": ("",),
    "chatty": ("Hey there, hope you are well!", "Hi guys, me again!", "Hello lovely people,"),
    "typo": ("hi,", "helo,", ""),
}
CLOSINGS = {
    "plain": ("Thanks.", "Thank you.", ""),
    "formal": ("Yours faithfully.", "Kind regards.", "I thank you in advance."),
    "terse": ("",),
    "chatty": ("Cheers and have a great day!", "Thanks a million, you are the best!"),
    "typo": ("thx", "thanks", ""),
}

# What the shifted production sample talks about, and nothing before it.
NEW_TOPICS = (
    "since I joined the new trade-in programme",
    "after the merger with the other webshop",
    "with the subscription plan from your spring campaign",
    "since the chatbot took over the hotline",
    "because of the recall that was in the news",
)
RAMBLING = (
    "I have been a customer for many years and have never had to write such a long message.",
    "My neighbour bought the same one and told me to write to you in every detail.",
    "I already tried everything that the manual, the forum and my nephew suggested.",
    "Before you ask, yes, I have read the page with the frequent questions twice.",
)
